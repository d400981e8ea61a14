"""What the tests of the report share: a reader of pages that refuses what is not sound, and a run's document."""

import html.parser
import re

from diffrep_jax.report.collect import collect
from diffrep_jax.report.document import document
from diffrep_jax.runs.provenance import software

TASKS = ("counterfactual", "evaluate", "interpolate", "manipulate", "probe", "reconstruct", "report", "sample")
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(html.parser.HTMLParser):
    """Reads a page, refuses what does not nest, and keeps elements, attributes and the words that are shown."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.elements, self.words, self.headings = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.stack, f"not closed: {self.stack}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        assert len(attributes) == len(dict(attributes)), f"an attribute twice in <{tag}>"
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack and self.stack[-1] == tag, f"</{tag}> in {self.stack}"
        self.stack.pop()

    def handle_data(self, data):
        if not {"style", "title"} & set(self.stack):
            self.words.append(data)
        if self.stack and re.fullmatch("h[1-6]", self.stack[-1]):
            self.headings.append((self.stack[-1], data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def report_of(folder, tasks=TASKS):
    return document(collect(folder), "DBAE", tasks, software())


def blocks(document, kind):
    return [block for section in document["sections"] for block in section["blocks"] if block["kind"] == kind]
