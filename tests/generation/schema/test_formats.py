import jsonschema_rs
import pytest

from tests.generation.test_structured import compiled, takes

LONG = "a" * 63
MINUTE = "2024-06-30T23:59"


@pytest.mark.parametrize(
    ("format_", "text", "valid"),
    [
        ("date", "2000-02-29", True),
        ("date", "2024-02-29", True),
        ("date", "1900-02-29", False),
        ("date", "2023-02-29", False),
        ("date", "2023-04-31", False),
        ("date-time", "2024-02-29t00:00:00.5z", True),
        ("date-time", "2023-02-29T00:00:00Z", False),
        ("date-time", f"{MINUTE}:60+02:00", False),
        ("time", "23:59:59-00:00", True),
        ("time", "10:00:60Z", False),
        ("time", "24:00:00Z", False),
        ("hostname", f"{LONG}.{LONG}.{LONG}", True),
        ("hostname", f"{LONG}.{'b' * 26}.default.svc.cluster.local", True),
        ("hostname", ".".join("a" * 16), True),
        ("hostname", ".".join([LONG, LONG, LONG, "a" * 62]), False),
        ("hostname", f"{LONG}a", False),
        ("hostname", "ab--cd.example", False),
        ("hostname", "a--b.example", True),
        ("hostname", "a-", False),
        ("email", f"{'a' * 64}@b", True),
        ("email", f"{'a' * 65}@b", False),
        ("email", "john.f.kennedy+x@mail.example.com", True),
        ("email", "a@[1.2.3.4]", True),
        ("email", f"a@{LONG}a", False),
        ("email", "a..b@c", False),
    ],
)
def test_a_format_takes_what_validators_take(format_, text, valid):
    schema = {"type": "string", "format": format_}
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    assert validator.is_valid(text) is valid, "or this test is wrong"
    assert takes(compiled(schema), f'"{text}"') is valid
    beside = takes(compiled({**schema, "pattern": "."}), f'"{text}"')
    assert beside is valid or (valid and len(text) > 30), "fewer of the long ones beside a pattern"


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": r"^\w+([\.-]?\w+)*@\w+([\.-]?\w+)*(\.\w{2,})+$", "minLength": 6},
        {"pattern": r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$", "maxLength": 254},
        {"pattern": r"@example-company\.com$"},
    ],
)
def test_the_patterns_that_people_write_for_addresses_can_stand_beside_the_format(schema):
    assert compiled({"type": "string", "format": "email", **schema})
