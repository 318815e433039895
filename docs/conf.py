"""Sphinx's settings for the site that ``make docs`` builds: the documents, the examples and the public functions."""

from __future__ import annotations

import os
import re
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from latex2mathml.converter import convert
from PIL import Image, ImageOps
from sphinx.ext.autodoc.mock import _MockObject

ROOT = Path(__file__).resolve().parents[1]
for name in ("HCNN_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # the arrays are small, and examples run side by side
    os.environ.setdefault(name, "1")
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), os.environ.get("PYTHONPATH", "")]
)  # for examples that start Python
os.environ.setdefault("HCNN_QUIET", "1")  # pages show no line that kernels are compiled
os.environ.setdefault(
    "CUPY_PYLOPS", "0"
)  # PyLops imports CuPy where it finds it, and fails without the GPU's libraries

import sklearn.base  # noqa: E402, F401 - before Sphinx puts something else in the place of torch, which it asks for

import hcnn_core  # noqa: E402
from scripts.clean_notebooks import INSTALL, clean_folder  # noqa: E402
from scripts.pages import pages  # noqa: E402

project = "hcnn"
author = copyright = "the hcnn authors"
version = release = hcnn_core.__version__

highlight_language = "none"  # blocks without a language are of the shell
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",  # a link to the source of each function
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # documents of their own, whose first headings are not of the first level

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
RELEASED = f"\n## [{release}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
html_title = f"hcnn {release}{'' if RELEASED else ' (in the making)'}"  # which version a page is of
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "secondary_sidebar_items": ["page-toc", "sourcelink", "sg_download_links"],
    "show_prev_next": False,
}
html_sidebars = {"*": []}  # pages without a section have no navigation of one
html_context = {"default_mode": "auto"}

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings have the types
autodoc_preserve_defaults = True  # as they are written, where they are functions
autodoc_mock_imports = [name for name in ("jax", "torch") if find_spec(name) is None]  # listed without them
_MockObject.__setitem__ = lambda *_: None  # hcnn_core.jax enters rules in JAX's tables
numpydoc_show_class_members = False
numpydoc_validation_checks: set[str] = set()  # scripts/check_docstrings.py checks them
add_module_names = False
toc_object_entries_show_parents = "hide"  # or the list beside a page is cut off

NEEDS = {
    "plot_04_frameworks.py": ("torch", "jax"),
    "plot_31_consensus_4d.py": ("torch",),
    "plot_32_denoising_4d.py": ("torch",),
    "plot_44_onnx.py": ("onnx", "onnxruntime"),
}
"""Modules that an example needs and that the extra "docs" does not install. Without them its page is not run;
its thumbnail is a file of its own."""

left_out = [name for name, modules in NEEDS.items() if not all(map(find_spec, modules))]
for name in left_out:
    print(f"{name} is shown but not run: it needs {' and '.join(NEEDS[name])}")

# A Matplotlib picture that nobody sees is no reason to fail; everything else that warns in an example is.
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")

sphinx_gallery_conf = {
    "examples_dirs": [str(pages(ROOT / "docs" / "_build" / "examples"))],
    "gallery_dirs": ["gallery"],
    "filename_pattern": rf"{os.sep}plot_(?!{'|'.join(name.removeprefix('plot_') for name in left_out) or '$'})",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": False,  # run them all, then fail
    "only_warn_on_example_error": False,
    "backreferences_dir": "api/uses",
    "doc_module": ("hcnn",),
    "reference_url": {"hcnn": None},
    "inspect_global_variables": False,
    "remove_config_comments": True,
    "show_signature": False,
    "first_notebook_cell": INSTALL,
    "write_computation_times": False,  # every page says its own
    "run_stale_examples": True,  # their size may have changed, or the package
    "image_scrapers": ("matplotlib",),
    "capture_repr": (),  # pages print what they show, and would show what calls of Matplotlib return
    "matplotlib_animations": False,
    "copyfile_regex": "",
    "min_reported_time": 1,
    "parallel": 2,
}


def link_to_files(app: Any, name: str, source: list[str]) -> None:
    """Make links to Markdown files outside this folder downloads, and those to folders text; MyST has neither."""

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        if (ROOT / "docs" / target).is_dir():
            return text.strip("[]")
        return f"{text}(path:{target})" if target.endswith(".md") else found.group()

    source[0] = re.sub(r"(\[[^][]*\])\((\.\./[^)#]+)\)", link, source[0])


def clean_notebooks(app: Any) -> None:
    """Clean what Sphinx-Gallery has just written."""
    clean_folder(Path(app.srcdir) / "gallery")


def show_one_panel(app: Any) -> None:
    """Make the thumbnail of a strip of panels, which would be too small to see, of its first panel."""
    for path in (Path(app.srcdir) / "gallery").glob("*/images/thumb/*_thumb.png"):
        picture = path.parents[1] / path.name.replace("_thumb", "_001")
        if picture.is_file() and (panel := first_panel(Image.open(picture).convert("RGB"))) is not None:
            ImageOps.pad(panel, (400, 280), color="white").save(path)


def first_panel(picture: Image.Image) -> Image.Image | None:
    """Return a strip up to the first of the wide gaps between its panels; None of what is no strip."""
    width, height = picture.size
    empty = np.asarray(picture).min(axis=(0, 2)) > 250  # whether a column is
    edges = np.flatnonzero(np.diff(empty.astype(int), prepend=0, append=0)).reshape(-1, 2)
    gaps = [
        (end - begin, end) for begin, end in edges.tolist() if 0.6 * height < begin < min(2.2 * height, 0.8 * width)
    ]
    if width <= 2 * height or not gaps:
        return None
    return picture.crop((0, 0, next(end for size, end in gaps if size >= 0.7 * max(gaps)[0]), height))


BACK = re.compile(r"api/generated/([\w.]+)\.(\w+)\.html#[\w.]*?\b\2((?:\.\w+)*)(?=\")")
"""A link from a source to the page of a function: package, name, and the method of a class."""


def link_back(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Mend links from sources to pages: viewcode takes one package for all names of a module, and some have two."""
    if page.startswith("_modules/") and "body" in context:
        context["body"] = BACK.sub(r"api/generated/\1.\2.html#\1.\2\3", context["body"])


NAME = re.compile(r"(?<=\w[._])(?=\w[\w.]*(?:</a>|<a ))")
"""Where a long name of a function may break, in text that a link ends or follows."""


def break_names(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Let names of functions break at dots and underscores, beside a page and in its heading."""
    if page.startswith("api/") and "body" in context:
        make = context["generate_toctree_html"]
        context["generate_toctree_html"] = lambda *given, **options: NAME.sub("<wbr>", str(make(*given, **options)))
        context["body"] = re.sub(
            r"<h1>[\w.]{20}.*", lambda found: NAME.sub("<wbr>", found.group()), context["body"], count=1
        )


def write_formula(translator: Any, node: Any) -> None:
    """Write a formula as MathML, which browsers draw by themselves, without scripts or the network."""
    if isinstance(node, nodes.math_block):
        formula = f'<div class="math">{convert(node.astext(), display="block")}</div>'
    else:
        formula = convert(node.astext())
    translator.body.append(formula)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Connect what Sphinx calls."""
    app.connect("source-read", link_to_files)
    app.connect("html-page-context", link_back)
    app.connect("html-page-context", break_names, 900)  # after the theme
    app.connect("builder-inited", clean_notebooks, 900)  # after Sphinx-Gallery
    app.connect("builder-inited", show_one_panel, 900)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
