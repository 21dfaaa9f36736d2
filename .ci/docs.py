"""The pages of the documentation that the build makes from the package itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import reconstruct
from reconstruct.__main__ import parser
from reconstruct.command.listing import as_markdown
from reconstruct.command.settings import all_settings
from reconstruct.shipped import find_pipeline, pipeline_names


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    pages = {
        "reference/command_line.md": "\n".join(command_line()),
        "reference/settings.md": SETTINGS + as_markdown(all_settings()),
        "reference/pipelines.md": "\n".join(pipelines()),
        "reference/python.md": "\n".join(python()),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


SETTINGS = """# Settings

Every key of a pipeline file. `reconstruct settings KEY` prints the same, `reconstruct init sfm`
a file with all of them, and `reconstruct settings --schema` a JSON schema, with which an editor
completes and checks pipeline files. A key may be replaced for one run:
`--set match.ratio=0.9`.

"""


def command_line() -> Iterator[str]:
    """A section for each command, as its --help tells it."""
    main = parser()
    yield f"# Command line\n\n{main.description}\n\n```text\n{main.format_help()}```\n"
    (commands,) = (a for a in main._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        yield f"## reconstruct {name}\n\n```text\n{command.format_help()}```\n"
    yield "Exit status: 0 done; 1 the data did not allow it; 2 wrong use; 3 done, but some inputs"
    yield "were skipped (the summary names them and says why); 130 interrupted.\n"


def pipelines() -> Iterator[str]:
    """The pipeline files of the package, in full."""
    yield "# Pipelines\n\nPart of the package, and run by name from any folder:"
    yield "`reconstruct run sfm --images PHOTOS`.\n"
    for name in pipeline_names():
        text = find_pipeline(name).read_text(encoding="utf-8")
        yield f"## {name}\n\n```yaml\n{text}```\n"


def python() -> Iterator[str]:
    """The public names, from their docstrings."""
    yield PYTHON
    yield from (f"::: {home}.{name}\n" for name, home in sorted(reconstruct._HOMES.items()))


PYTHON = """# Python

```python
import reconstruct

run = reconstruct.run("sfm", images="photos", output="out")
run.model  # pycolmap.Reconstruction, or None
```

Names are imported when first used: `import reconstruct` itself loads neither torch nor pycolmap.

"""
