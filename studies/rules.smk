# The rules of every study. Each calls a command that a user could type; the config says which.
#
#     snakemake -s studies/demo/Snakefile --cores 2            runs what is missing, or goes on
#     snakemake -s studies/demo/Snakefile -n                   the plan; `costs` as target prints its costs
#
# Results: <output_dir>/<study>.parquet, one row a test utterance; results.md, results.tex, figures/ and
# report.html are drawn from it. Models lie below steps/, the single tests below tests/.
import json
import os
import shlex
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace

import yaml
from snakemake.exceptions import WorkflowError

from data_builders.option_reader import read_yaml
from tse_ser.publishing.corpora import base_name

HOUSE = Path(workflow.current_basedir).parent
STUDY = config["study"]
OUT = config.get("output_dir") or f"results/{STUDY}"
# A step or test that another file has is left out by a null.
STEPS = {name: entry for name, entry in config["steps"].items() if entry}
FOLDS = [int(fold) for fold in config["folds"]]
SEEDS = [int(seed) for seed in config["seeds"]]
OVERRIDES = config.get("overrides", {})
# The file that a step writes last: its folder is complete when it is there.
LAST_FILES = {
    "train": "training_facts.json",
    "denoise": "metadata.parquet",
    "noise": "speech_shaped.wav",
    "folder": "model.safetensors",
}
RUN_BY_RECIPES = ("train", "denoise")


def at_home(path):
    """A file of the repository, as seen from here."""
    return os.path.relpath(HOUSE / path)


def words(options):
    """Options as words of a command line; None leaves one out."""
    line = []
    for name, value in options.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            line += [f"--{name}", *(json.dumps(one) if isinstance(one, dict) else str(one) for one in values)]
    return shlex.join(line)


def all_tests():
    """The tests of the tables, those in other conditions, and of both what `only` asks for."""
    tests = {name: test for name, test in config["tests"].items() if test}
    for condition, entry in config.get("conditions", {}).items():
        for value, options in entry["values"].items():
            for name in entry["tests"]:
                test = tests[name]
                labels = {**test["labels"], **entry.get("labels", {}), "tables": []}
                tests[f"{name}_{condition}_{value}".replace(" ", "_")] = {
                    **test,
                    "labels": {**labels, "condition_label": condition, "condition_value": str(value)},
                    "from": {**test["from"], **entry.get("from", {})},
                    "options": {**test.get("options", {}), **options},
                    "folds": entry.get("folds", test.get("folds", FOLDS)),
                }
    only = config.get("only") or ["*"]
    chosen = {
        name: test
        for name, test in tests.items()
        if any(fnmatchcase(name, word) or word in test["labels"].get("tables", []) for word in only)
    }
    if not chosen:
        raise WorkflowError(f"only={only} fits no test of {', '.join(tests)}, and no table")
    return chosen


def program(name):
    """Whether a step trains, denoises, makes noise, or is there already."""
    if name not in STEPS:
        raise WorkflowError(f"{name} is no step of the study {STUDY}: {', '.join(STEPS)}")
    return next(key for key in LAST_FILES if STEPS[name].get(key))


def folder(name, fold, seed):
    """The folder of a step, that of all folds or seeds where they share it."""
    if program(name) == "folder":
        return os.path.expandvars(STEPS[name]["folder"])
    repeat = STEPS[name].get("repeat", ["fold", "seed"])
    fold, seed = (value if key in repeat else "all" for key, value in (("fold", fold), ("seed", seed)))
    return f"{OUT}/steps/{name}/fold-{fold}_seed-{seed}"


def folders_behind(entry, wildcards):
    """What a step or test builds on: folders by the option that takes them."""
    return {
        option: folder(name, wildcards.fold, wildcards.seed)
        for option, name in entry.get("from", {}).items()
    }


def files_behind(entry, wildcards):
    """The files that tell whether those folders are complete, and when they were made."""
    folders = folders_behind(entry, wildcards)
    return [
        f"{folders[option]}/{LAST_FILES[program(name)]}"
        for option, name in entry.get("from", {}).items()
    ]


def recipe(name):
    """The recipe of a step, as seen from here."""
    return at_home(f"{config['recipes']}/{STEPS[name][program(name)]}")


def recipe_files(name):
    """The recipe of a step, what it includes after it, and the models' configs that they name."""
    files = [recipe(name)]
    configs = configs_in(STEPS[name].get("options", {}))
    for path in files:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        named = content.get("include", [])
        named = [named] if isinstance(named, str) else named
        files += [os.path.relpath(Path(path).parent / each) for each in named]
        configs += configs_in(content)
    return files + list(dict.fromkeys(configs))


def configs_in(options):
    """The files of models' configs among options."""
    named = [options.get(f"{part}_config") for part in ("extractor", "classifier")]
    return [at_home(path) for path in named if path and (HOUSE / path).is_file()]


def repeated(wildcards):
    """The fold and seed of a step; one that all share takes the seed of its recipe."""
    found = {"fold": wildcards.fold, "seed": wildcards.seed}
    return {key: value for key, value in found.items() if value != "all"}


def step_options(wildcards):
    """The options of a step's command beside its recipe."""
    entry = STEPS[wildcards.step]
    return words(
        {
            "protocol": config["protocol"],
            **repeated(wildcards),
            **entry.get("options", {}),
            **folders_behind(entry, wildcards),
            **OVERRIDES.get(program(wildcards.step), {}),
        }
    )


def first_runs():
    """Each step that is run, with how often, and the folder and arguments of the first time."""
    needed = {name for test in TESTS.values() for name in test["from"].values()}
    for name in list(STEPS)[::-1] * len(STEPS):
        if name in needed:
            needed |= set(STEPS[name].get("from", {}).values())
    for name, entry in STEPS.items():
        if name in needed and program(name) in RUN_BY_RECIPES:
            repeat = entry.get("repeat", ["fold", "seed"])
            fold, seed = (
                values[0] if key in repeat else "all"
                for key, values in (("fold", FOLDS), ("seed", SEEDS))
            )
            path = folder(name, fold, seed)
            options = step_options(SimpleNamespace(step=name, fold=fold, seed=seed))
            runs = (len(FOLDS) if "fold" in repeat else 1) * (len(SEEDS) if "seed" in repeat else 1)
            yield {
                "step": name,
                "program": program(name),
                "runs": runs,
                "folder": path,
                "arguments": ["--config", recipe(name), *shlex.split(options), "--output_dir", path],
            }


def test_options(wildcards):
    """The options of a test's command."""
    entry = TESTS[wildcards.test]
    return words(
        {
            **config["data"],
            "protocol": config["protocol"],
            **repeated(wildcards),
            **entry.get("options", {}),
            **folders_behind(entry, wildcards),
            **OVERRIDES.get("evaluate", {}),
        }
    )


def check_sharing():
    """Steps that several folds share build on shared ones, and never hear whom a fold is tested on."""
    tested = corpora(config["data"]["targets"])
    for name, entry in STEPS.items():
        repeat = set(entry.get("repeat", ["fold", "seed"]))
        for parent in entry.get("from", {}).values():
            if program(parent) != "folder" and (
                lacking := set(STEPS[parent].get("repeat", ["fold", "seed"])) - repeat
            ):
                raise WorkflowError(f"each {min(lacking)} has a {parent} of its own, but {name} is shared")
        if program(name) != "train" or "fold" in repeat:
            continue
        said = read_yaml(recipe(name)) | entry.get("options", {})
        heard = corpora(said.get("targets")) | corpora(said.get("interferers"))
        # The speech of LibriMix is LibriSpeech, whatever else the recipe names.
        if said.get("librimix_subset") is None and heard & tested:
            raise WorkflowError(
                f"{name} serves every fold, but trains on {min(heard & tested)}, on which the folds are "
                "tested: give it `repeat: [fold, seed]` or corpora of its own"
            )


def corpora(names):
    return {base_name(name) for name in names or []}


TESTS = all_tests()
RESULTS = [
    f"{OUT}/tests/{name}/fold-{fold}_seed-{seed}.json"
    for name, test in TESTS.items()
    for fold in FOLDS
    for seed in SEEDS
    if fold in test.get("folds", FOLDS)
]
REPORT = [f"{OUT}/{name}" for name in ("results.md", "results.tex", "figures", "report.html")]
check_sharing()

# Where speech lies and what computes decide nothing about a result, so they are no params.
PLACES = words({key: config.get(key) for key in ("corpus_dir", "corpus_dirs", "cache_dir")})
PYTHON = sys.executable
LAUNCH = PYTHON
if config.get("accelerate_config"):
    LAUNCH += " -m accelerate.commands.launch --quiet " + words({"config_file": config["accelerate_config"]})
# A wheel has no file at the top.
TRAIN = at_home("train.py") if (HOUSE / "train.py").is_file() else "-m tse_ser.training.train"

# A folder is locked while something writes it, so that a training which a killed Snakemake left behind
# ends before another one goes on. What was made with other options, or from something else, is no start.
OWN_FOLDER = """
    exec 9>> {params.folder}/.lock; flock 9
    made_from=$(cat {input} - <<< {params.options:q} | sha256sum)
    if [ "$(cat {params.folder}/.made_from 2> /dev/null)" != "$made_from" ]; then
        find {params.folder} -mindepth 1 ! -name .lock -delete
        echo "$made_from" > {params.folder}/.made_from
    fi
"""


wildcard_constraints:
    fold=r"\d+|all",
    seed=r"\d+|all",


localrules: study, costs, results, tables, figures, report


rule train:
    input:
        lambda wildcards: [*recipe_files(wildcards.step), *files_behind(STEPS[wildcards.step], wildcards)],
    output:
        f"{OUT}/steps/{{step}}/fold-{{fold}}_seed-{{seed}}/training_facts.json",
    params:
        options=step_options,
        folder=subpath(output[0], parent=True),
    log:
        f"{OUT}/logs/{{step}}_fold-{{fold}}_seed-{{seed}}.log",
    threads: lambda wildcards: STEPS[wildcards.step].get("threads", config.get("threads", 1))
    resources:
        gpu=config.get("gpus", 0),
    shell:
        OWN_FOLDER
        + """
    {LAUNCH} {TRAIN} --config {input[0]} {params.options} {PLACES} --output_dir {params.folder} \
        --resume_from_checkpoint auto >> {log} 2>&1
        """


rule denoise:
    input:
        lambda wildcards: [*recipe_files(wildcards.step), *files_behind(STEPS[wildcards.step], wildcards)],
    output:
        f"{OUT}/steps/{{step}}/fold-{{fold}}_seed-{{seed}}/metadata.parquet",
    params:
        options=step_options,
        folder=subpath(output[0], parent=True),
    log:
        f"{OUT}/logs/{{step}}_fold-{{fold}}_seed-{{seed}}.log",
    threads: config.get("threads", 1)
    resources:
        gpu=config.get("gpus", 0),
    shell:
        OWN_FOLDER
        + """
    {LAUNCH} -m tse_ser.training.denoise_corpus --config {input[0]} {params.options} {PLACES} \
        --output_dir {params.folder} >> {log} 2>&1
        """


# Noise that nobody recorded, with the spectrum of the voices named.
rule noise:
    output:
        f"{OUT}/steps/{{step}}/fold-{{fold}}_seed-{{seed}}/{LAST_FILES['noise']}",
    params:
        voices=lambda wildcards: words({"targets": STEPS[wildcards.step]["noise"]}),
    shell:
        """
    {PYTHON} -m data_builders.speech_shaped_noise {params.voices} {PLACES} --output {output}
        """


rule evaluate:
    input:
        lambda wildcards: files_behind(TESTS[wildcards.test], wildcards),
    output:
        f"{OUT}/tests/{{test}}/fold-{{fold}}_seed-{{seed}}.json",
    params:
        options=test_options,
    log:
        f"{OUT}/logs/test_{{test}}_fold-{{fold}}_seed-{{seed}}.log",
    threads: config.get("threads", 1)
    resources:
        gpu=config.get("gpus", 0),
    shell:
        """
    {PYTHON} -m tse_ser.evaluation.evaluate_checkpoint {params.options} {PLACES} --output {output} \
        >> {log} 2>&1
        """


# What the tests are called: tables can be renamed without another test.
rule study:
    output:
        f"{OUT}/study.json",
    params:
        study={
            "study": STUDY,
            "protocol": config["protocol"],
            "tests": {name: test["labels"] for name, test in TESTS.items()},
            "results": [os.path.relpath(path, OUT) for path in RESULTS],
            "steps": list(first_runs()),
        },
    run:
        Path(output[0]).write_text(json.dumps(params.study, indent=2) + "\n", encoding="utf-8")


rule costs:
    input:
        f"{OUT}/study.json",
    shell:
        "{PYTHON} -m tse_ser.training.costs --study {input} {PLACES}"


rule results:
    input:
        study=f"{OUT}/study.json",
        tests=RESULTS,
    output:
        f"{OUT}/{STUDY}.parquet",
        f"{OUT}/{STUDY}.json",
    shell:
        "{PYTHON} -m tse_ser.evaluation.results --study {input.study} --output {output[0]}"


rule tables:
    input:
        f"{OUT}/{STUDY}.parquet",
        f"{OUT}/{STUDY}.json",
    output:
        REPORT[:2],
    shell:
        "{PYTHON} -m tse_ser.evaluation.tables {input[0]} --output {output[0]}"


rule figures:
    input:
        f"{OUT}/{STUDY}.parquet",
        f"{OUT}/{STUDY}.json",
    output:
        directory(REPORT[2]),
    shell:
        "{PYTHON} -m tse_ser.evaluation.figures {input[0]} --output {output} {PLACES}"


rule report:
    input:
        f"{OUT}/{STUDY}.parquet",
        f"{OUT}/{STUDY}.json",
    output:
        REPORT[3],
    shell:
        "{PYTHON} -m tse_ser.evaluation.report {input[0]} --output {output} {PLACES}"
