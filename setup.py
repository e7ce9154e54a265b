"""What the wheel holds: the packages, and folders of the top level as data of `tse_ser`.

Everything else is in pyproject.toml, which can list packages or find them, but not both.
"""

from pathlib import Path

from setuptools import find_packages, setup

# `tse_ser.resources.folder` finds them: beside `tse_ser` in a checkout, inside of it in a wheel.
DATA_FOLDERS = [
    folder
    for folder in ("deploy/endpoint", "model_cards", "recipes", "studies")
    if Path(folder).is_dir()
]


def data_package(folder: str) -> str:
    return f"tse_ser.{folder.replace('/', '.')}"


setup(
    packages=[
        *find_packages(include=["modeling", "data_builders*", "tse_ser*"]),
        *map(data_package, DATA_FOLDERS),
    ],
    package_dir={data_package(folder): folder for folder in DATA_FOLDERS},
    package_data={
        "tse_ser": ["**/*.json", "**/*.html", "**/*.md"],
        **{data_package(folder): ["**/*"] for folder in DATA_FOLDERS},
    },
)
