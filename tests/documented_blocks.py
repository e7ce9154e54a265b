"""Code blocks and inline commands of the Markdown pages, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```\s*$",
    re.MULTILINE | re.DOTALL,
)
# A block that cannot be run says why, in the lines before it.
MARKER = re.compile(r"<!-- not run: (?P<reason>[^>]*?) *-->\s*\Z")
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
HEREDOC = re.compile(r"<<-? *'?(\w+)'?")
FILE_NAME = re.compile(r"# (?P<name>[\w./-]+\.\w+)\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str  # file name of the page
    line: int  # 1-based line of its fence
    language: str  # word behind the fence, "" where there is none
    text: str  # what stands in it
    reason: str | None  # why it is not run, where it says so

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The name in a first line such as `# my_recipe.yaml`: the block is that file."""
        match = FILE_NAME.match(self.text.partition("\n")[0])
        return match["name"] if match else None


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        marker = MARKER.search(text[: match.start()])
        indent = len(match["indent"])
        content = "".join(line[indent:] for line in match["text"].splitlines(keepends=True))
        blocks.append(
            Block(
                page=page.name,
                line=text.count("\n", 0, match.start()) + 1,
                language=match["language"].lower(),
                text=content,
                reason=marker["reason"] if marker else None,
            )
        )
    return blocks


def read_inline_commands(page: Path, programs: set[str]) -> list[str]:
    """Commands in the prose: spans that begin with a program and have flags or a target."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    spans = [" ".join(match.split()) for match in INLINE.findall(prose)]
    return [span for span in spans if span.split()[0] in programs and len(span.split()) > 1]


def split_commands(text: str) -> list[list[str]]:
    """The commands of a shell script, as words; without comments and here documents."""
    lines: list[str] = []
    ending = None
    for line in text.replace("\\\n", " ").splitlines():
        if ending is not None:
            ending = None if line.strip() == ending else ending
            continue
        match = HEREDOC.search(line)
        ending = match[1] if match else None
        lines.append(line.removeprefix("$ "))
    commands: list[list[str]] = []
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        commands.append([])
        is_file = False
        for word in lexer:
            if set(word) <= set("();|&"):
                commands.append([])
            elif not is_file and not set(word) <= set("<>"):
                commands[-1].append(word)
            is_file = set(word) <= set("<>")
    return [command for command in commands if command]
