"""What the MIB circuit-localisation track takes: EAP-IG's JSON under the name by which its users know it.

Source: https://arxiv.org/abs/2504.13151; a submission is a folder a task and model with importances.json in it.
"""

from __future__ import annotations

from dataclasses import replace

from circuits.exchange import eap_ig

FORMAT = replace(
    eap_ig.FORMAT,
    name="mib",
    summary="The same as eap-ig, as a MIB submission has it (importances.json).",
    recognises=lambda data: False,
)
