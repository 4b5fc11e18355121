"""Facts to text on a public set: how slot errors are counted there, and that it is measured once."""

from slm_helpers.recipes import public_data_to_text as public_writing
from slm_helpers.text.records import parse_facts


def test_restaurants_are_checked_by_what_is_said_of_each_fact():
    record = parse_facts(
        "name: The Mill | eatType: pub | food: Fast food | priceRange: less than £20 | customer rating: 1 out of 5 | area: city centre | "
        "familyFriendly: no | near: Café Rouge"
    )
    right = "The Mill, a pub near Café Rouge in the centre of the city, has cheap fast food, one star, and is not for children."
    assert public_writing.check_restaurant(right, record) == (0, 0)
    assert public_writing.check_restaurant(right.replace("not for", "good for"), record) == (1, 0)
    assert public_writing.check_restaurant(right.replace("centre of the city", "riverside"), record) == (1, 0)
    assert public_writing.check_restaurant("The Mill is near Café Rouge.", record) == (6, 0)
    less = parse_facts("name: The Mill | eatType: pub")
    assert public_writing.check_restaurant("The Mill is a family friendly pub by the river with Chinese food.", less) == (0, 3)
    assert public_writing.check_restaurant(public_writing.RestaurantTemplate().predict(
        ["name: The Mill | eatType: pub | food: Indian | priceRange: high | customer rating: low | familyFriendly: yes"])[0],
        parse_facts("name: The Mill | eatType: pub | food: Indian | priceRange: high | customer rating: low | familyFriendly: yes"),
    ) == (0, 0)  # fmt: skip
