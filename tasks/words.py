"""Word lists of the tasks: names, places, things, colours. Our own, common English words only.

Every word was chosen to be one token with a leading space in the GPT-2 vocabulary; a task still filters
them by the tokenizer at hand (Lexicon), because another tokenizer may split them.
"""

from __future__ import annotations


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


NAMES = listed(
    """Mary John Tom James Robert Michael David William Richard Joseph Thomas Charles Daniel Matthew Anthony
    Mark Steven Paul Andrew Joshua Kevin Brian George Edward Ronald Timothy Jason Ryan Jacob Gary Nicholas
    Eric Stephen Larry Justin Scott Brandon Benjamin Samuel Gregory Frank Alexander Patrick Jack Tyler Aaron
    Adam Nathan Henry Peter Kyle Walter Ethan Keith Roger Noah Sean Arthur Simon Martin Oscar Leo Max Patricia
    Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Lisa Nancy Betty Sandra Ashley Emily Donna
    Michelle Carol Amanda Melissa Rebecca Laura Helen Amy Anna Angela Emma Ruth Rachel Maria Julie Alice Julia
    Kelly Lauren Martha Hannah"""
)

PLACES = listed("library museum station market bakery theater airport hotel park beach farm church office")

GIFTS = listed("book letter coat lamp basket camera ticket guitar sandwich flower map hat watch ball picture")

OBJECTS = listed(
    """pencil notebook pen cup plate jug mug puzzle textbook leash necklace bracelet bottle ball envelope
    lighter bowl box bag shirt coat scarf shoe belt ring key phone lamp chair candle basket bucket brush towel
    pillow blanket mirror clock wallet hammer"""
)

COLOURS = listed(
    "red orange yellow green blue purple brown black white pink gray silver gold violet tan olive"
)

SURFACES = ("table", "desk", "floor")

NO_COUNTRY = listed(
    """bread music paper river water garden weather thunder butter winter silence yesterday breakfast dinner
    laughter sugar"""
)
"""Words in a country's or a city's place for which no fact exists."""
