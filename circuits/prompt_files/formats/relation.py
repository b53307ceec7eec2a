"""A relation as LRE publishes it: templates, and samples of subject and object; each template with each sample.

    {"name": "country capital city", "prompt_templates": ["The capital of {} is"], "prompt_templates_zs": [...],
     "samples": [{"subject": "Canada", "object": "Ottawa"}, ...]}

There are no corrupted twins; a subject may stand in for another of the relation.
Source: Hernandez et al. 2023 (arXiv 2308.09124, github.com/evandez/relations).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from circuits.prompt_files.content import Content
from circuits.prompt_files.formats.format import Format, Rows, only_span, spaced
from circuits.prompt_files.records import PromptRow

SLOT = "{}"


def _one_slot(template: str) -> str:
    if template.count(SLOT) != 1 or template.replace(SLOT, "").count("{"):
        raise ValueError(f"template {template!r} has not exactly one slot, which is written {SLOT}")
    return template


Template = Annotated[str, AfterValidator(_one_slot)]


class Sample(BaseModel):
    subject: str = Field(min_length=1)
    object: str = Field(min_length=1)


class Relation(BaseModel):
    name: str = "relation"
    prompt_templates: list[Template] = Field(min_length=1)
    prompt_templates_zs: list[Template] = []
    samples: list[Sample] = Field(min_length=1)

    def rows(self) -> Rows:
        templates = dict.fromkeys((*self.prompt_templates, *self.prompt_templates_zs))
        return [self._row(i, sample, frame) for i, sample in enumerate(self.samples) for frame in templates]

    def _row(self, i: int, sample: Sample, template: str) -> PromptRow:
        prompt = template.replace(SLOT, sample.subject)
        return PromptRow(
            f"sample {i} in {template!r}", prompt, (spaced(prompt, sample.object),),
            positions=only_span(prompt, sample.subject), template=template, key=sample.subject, swap="SUBJECT",
            kind=f"subject of {self.name}",
        )  # fmt: skip


def _recognises(content: Content) -> bool:
    return content.has("samples", "prompt_templates")


def _read(content: Content, column: str | None) -> Rows:
    return [row for _, relation in content.validated(Relation) for row in relation.rows()]


FORMAT = Format(
    name="relation",
    summary="a relation of LRE (Hernandez et al. 2023), without corrupted twins",
    holds='{"prompt_templates": ["... {} ..."], "samples": [{"subject": "...", "object": "..."}, ...]}',
    recognises=_recognises,
    read=_read,
    pair_free=True,
)
