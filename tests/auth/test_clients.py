import pytest

from app.auth.clients import client_address, parse_networks
from app.settings import InvalidSetting

PROXIES = parse_networks("10.0.0.0/8, 192.0.2.1, ::1")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),  # invented
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.9"], "203.0.113.9"),  # the left one is invented
        ("10.0.0.1", ["1.2.3.4", "203.0.113.9, 192.0.2.1"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
        ("::1", ["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.7", [], "198.51.100.7"),
        ("10.0.0.1", ["unknown"], "unknown"),
        ("unknown", ["203.0.113.9"], "unknown"),
    ],
)
def test_the_nearest_address_that_is_no_trusted_proxy_counts(
    peer: str, forwarded_for: list[str], expected: str
):
    assert client_address(peer, forwarded_for, PROXIES) == expected


def test_one_customers_ipv6_addresses_are_one_client():
    first = client_address("2001:db8::1", [], ())
    assert first == client_address("2001:db8::ffff", [], ())
    assert first != client_address("2001:db8:0:1::1", [], ())


def test_a_wrong_proxy_is_refused_with_its_text():
    with pytest.raises(InvalidSetting, match=r"LLMHOST_TRUSTED_PROXIES: 'proxy\.local'"):
        parse_networks("10.0.0.1,proxy.local")
