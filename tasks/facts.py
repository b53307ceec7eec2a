"""Facts about countries, and the sentences that ask for them. Our own table, from general knowledge.

A row: country, capital, official or most spoken language, continent, another city. "-" stands where the
answer is several words or open to dispute. No city stands in two rows.
"""

from __future__ import annotations

from typing import NamedTuple

TABLE = """
Afghanistan Kabul - Asia Herat
Albania Tirana Albanian Europe Durres
Algeria Algiers Arabic Africa Oran
Angola Luanda Portuguese Africa Lobito
Argentina - Spanish America Rosario
Armenia Yerevan Armenian Asia Gyumri
Australia Canberra English Oceania Sydney
Austria Vienna German Europe Graz
Bahrain Manama Arabic Asia Muharraq
Bangladesh Dhaka Bengali Asia Chittagong
Belarus Minsk Belarusian Europe Gomel
Belgium Brussels - Europe Antwerp
Bolivia Sucre Spanish America Cochabamba
Brazil Brasilia Portuguese America Salvador
Bulgaria Sofia Bulgarian Europe Varna
Cambodia - Khmer Asia Battambang
Canada Ottawa - America Toronto
Chile Santiago Spanish America Valparaiso
China Beijing Chinese Asia Shanghai
Colombia Bogota Spanish America Cali
Croatia Zagreb Croatian Europe Split
Cuba Havana Spanish America Camaguey
Denmark Copenhagen Danish Europe Aarhus
Ecuador Quito Spanish America Guayaquil
Egypt Cairo Arabic Africa Alexandria
Estonia Tallinn Estonian Europe Tartu
Ethiopia - Amharic Africa Gondar
Fiji Suva - Oceania Lautoka
Finland Helsinki Finnish Europe Tampere
France Paris French Europe Lyon
Germany Berlin German Europe Hamburg
Ghana Accra English Africa Kumasi
Greece Athens Greek Europe Patras
Guinea Conakry French Africa Kankan
Haiti - Creole America Jacmel
Hungary Budapest Hungarian Europe Debrecen
Iceland Reykjavik Icelandic Europe Akureyri
India Delhi Hindi Asia Mumbai
Indonesia Jakarta Indonesian Asia Bandung
Iran Tehran Persian Asia Isfahan
Iraq Baghdad Arabic Asia Basra
Ireland Dublin English Europe Cork
Italy Rome Italian Europe Milan
Jamaica Kingston English America Portmore
Japan Tokyo Japanese Asia Osaka
Jordan Amman Arabic Asia Irbid
Kazakhstan Astana Kazakh Asia Almaty
Kenya Nairobi Swahili Africa Mombasa
Laos Vientiane Lao Asia Pakse
Latvia Riga Latvian Europe Liepaja
Lebanon Beirut Arabic Asia Sidon
Liberia Monrovia English Africa Buchanan
Libya Tripoli Arabic Africa Benghazi
Lithuania Vilnius Lithuanian Europe Kaunas
Madagascar Antananarivo Malagasy Africa Toamasina
Malawi Lilongwe English Africa Blantyre
Mali Bamako - Africa Sikasso
Malta Valletta Maltese Europe Mdina
Mexico - Spanish America Monterrey
Mongolia Ulaanbaatar Mongolian Asia Erdenet
Morocco Rabat Arabic Africa Casablanca
Mozambique Maputo Portuguese Africa Beira
Namibia Windhoek English Africa Swakopmund
Nepal Kathmandu Nepali Asia Pokhara
Nicaragua Managua Spanish America Masaya
Nigeria Abuja English Africa Lagos
Norway Oslo Norwegian Europe Bergen
Oman Muscat Arabic Asia Salalah
Pakistan Islamabad Urdu Asia Karachi
Paraguay Asuncion Spanish America Encarnacion
Peru Lima Spanish America Cusco
Poland Warsaw Polish Europe Krakow
Portugal Lisbon Portuguese Europe Porto
Qatar Doha Arabic Asia Dukhan
Romania Bucharest Romanian Europe Timisoara
Russia Moscow Russian Europe Kazan
Rwanda Kigali Kinyarwanda Africa Butare
Senegal Dakar French Africa Thies
Serbia Belgrade Serbian Europe Subotica
Slovakia Bratislava Slovak Europe Kosice
Slovenia Ljubljana Slovenian Europe Maribor
Somalia Mogadishu Somali Africa Kismayo
Spain Madrid Spanish Europe Barcelona
Sudan Khartoum Arabic Africa Omdurman
Sweden Stockholm Swedish Europe Gothenburg
Switzerland Bern - Europe Zurich
Syria Damascus Arabic Asia Aleppo
Tanzania Dodoma Swahili Africa Arusha
Thailand Bangkok Thai Asia Phuket
Tunisia Tunis Arabic Africa Sfax
Turkey Ankara Turkish - Istanbul
Uganda Kampala English Africa Entebbe
Ukraine Kyiv Ukrainian Europe Odessa
Uruguay Montevideo Spanish America Salto
Venezuela Caracas Spanish America Maracaibo
Vietnam Hanoi Vietnamese Asia Hue
Yemen Sanaa Arabic Asia Aden
Zambia Lusaka English Africa Kitwe
Zimbabwe Harare English Africa Bulawayo
"""


class Country(NamedTuple):
    """A row of the table."""

    name: str
    capital: str
    language: str
    continent: str
    city: str


COUNTRIES = tuple(Country(*row.split()) for row in TABLE.strip().splitlines())


def _column(field: str) -> tuple[tuple[str, str], ...]:
    return tuple((c.name, getattr(c, field)) for c in COUNTRIES if getattr(c, field) != "-")


FACTS: dict[str, tuple[tuple[str, str], ...]] = {
    "capital": _column("capital"),
    "language": _column("language"),
    "country": tuple((city, c.name) for c in COUNTRIES for city in (c.capital, c.city) if city != "-"),
    "continent": _column("continent"),
}
"""Relation -> (subject, answer) pairs."""

PHRASINGS: dict[str, tuple[str, ...]] = {
    "capital": (
        "The capital of {SUBJECT} is",
        "The capital city of {SUBJECT} is called",
        "The government of {SUBJECT} sits in the city of",
        "On the map of {SUBJECT}, the capital is marked as",
        "Q: What is the capital of {SUBJECT}?\nA:",
    ),
    "language": (
        "The language of {SUBJECT} is",
        "Most people in {SUBJECT} speak",
        "Newspapers in {SUBJECT} are printed in",
        "At schools in {SUBJECT}, lessons are given in",
        "Q: Which language is spoken in {SUBJECT}?\nA:",
    ),
    "country": (
        "The city of {SUBJECT} lies in",
        "People who live in {SUBJECT} are at home in",
        "On the map, {SUBJECT} is found in",
        "Someone born in {SUBJECT} was born in",
        "Q: In which country is {SUBJECT}?\nA:",
    ),
    "continent": (
        "On the globe, {SUBJECT} is part of",
        "The country of {SUBJECT} belongs to the continent of",
        "A trip to {SUBJECT} is a trip to",
        "In the list of continents, {SUBJECT} stands under",
        "Q: On which continent is {SUBJECT}?\nA:",
    ),
}

IN_CONTEXT = "The capital of {SUBJECT} is {DISTRACTOR}. Q: What is the capital of {SUBJECT}? A:"
"""The sentence of Yu et al. 2023, section 3: a false capital first, then the question."""
