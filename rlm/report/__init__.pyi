"""HTML pages: a study, and the executed notebooks."""

from .markup import escape_markdown as escape_markdown
