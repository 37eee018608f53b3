"""How the documents become a site: `make docs` writes it to build/docs. Warnings are errors there.

Sphinx, because it is the one generator that both reads docstrings as Python means them and has been kept well for all its years; MyST, so
that the pages stay plain Markdown, which reads on its own; Furo, a theme without trackers, fonts or scripts from elsewhere.
"""

from importlib.metadata import version as installed
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "Paddock"
author = "The Paddock authors"
project_copyright = author
version = release = installed("paddock")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["images"]
nitpicky = False  # the docstrings name types in words, not by roles

html_theme = "furo"
html_title = f"Paddock {version}"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

myst_heading_anchors = 4
# Links to files of the repository (a test, a module) are right in a checkout; in the site they have no target, and stay text.
suppress_warnings = ["myst.xref_missing", "myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes that a docstring lists are members too; told once
python_use_unqualified_type_names = True
add_module_names = False
maximum_signature_line_length = 100
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def setup(app: "Sphinx") -> None:
    """Show diagrams as their text: what draws them would be a script from elsewhere."""
    app.add_lexer("mermaid", TextLexer)
