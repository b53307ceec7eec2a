"""Facts as ROME publishes them: a prompt, the subject that stands in it, and the attribute that it asks for.

    {"subject": "Vinson Massif", "attribute": "Antarctica", "template": "{} is located in the continent",
     "prompt": "Vinson Massif is located in the continent of", "relation_id": "P30"}

There are no corrupted twins; a subject may stand in for another of the same relation.
Source: Meng et al. 2022 (arXiv 2202.05262), known_1000.json.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from circuits.prompt_files.content import Content
from circuits.prompt_files.formats.format import Format, Rows, only_span, spaced
from circuits.prompt_files.records import PromptRow


class Fact(BaseModel):
    prompt: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    attribute: str = Field(min_length=1)
    relation_id: str = ""

    def row(self, where: str) -> PromptRow:
        template = self.prompt.replace(self.subject, "{}")
        answer, positions = spaced(self.prompt, self.attribute), only_span(self.prompt, self.subject)
        return PromptRow(
            where, self.prompt, (answer,), positions=positions, template=template, key=self.subject, swap="SUBJECT",
            kind=f"subject of {self.relation_id or template}",
        )  # fmt: skip


def _recognises(content: Content) -> bool:
    return content.has("prompt", "subject", "attribute")


def _read(content: Content, column: str | None) -> Rows:
    return [fact.row(where) for where, fact in content.validated(Fact)]


FORMAT = Format(
    name="known-facts",
    summary="facts of ROME (Meng et al. 2022), without corrupted twins",
    holds='[{"prompt": "...", "subject": "...", "attribute": "..."}, ...]',
    recognises=_recognises,
    read=_read,
    pair_free=True,
)
