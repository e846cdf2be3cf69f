import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth.clients import MAX_HOPS, client_address, parse_networks
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
        # as proxies write addresses: with a port, in brackets, quoted, with a zone, mapped
        ("10.0.0.1", ["203.0.113.9:51234"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9:1, 10.0.0.2:65535"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8:1:2:3::4]:443"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["[2001:db8:1:2:3::4]"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ['"[2001:db8:1:2:3::4]:443"'], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["fe80::1%eth0"], "fe80::/64"),
        ("10.0.0.1", ["[fe80::1%25eth0]:80"], "fe80::/64"),
        ("fe80::1%3", [], "fe80::/64"),
        ("::1%lo", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["[::ffff:203.0.113.9]:80"], "203.0.113.9"),
        ("10.0.0.1", ["[oops"], "[oops"),
        ("10.0.0.1", [""], ""),
        ("10.0.0.1", ["x" * 100_000], "x" * 64),
    ],
)
def test_the_nearest_address_that_is_no_trusted_proxy_counts(
    peer: str, forwarded_for: list[str], expected: str
):
    assert client_address(peer, forwarded_for, PROXIES) == expected


def test_only_so_many_hops_are_read():
    header = ",".join(["1.2.3.4", *["10.0.0.1"] * 100_000])
    assert client_address("10.0.0.1", [header] * 3, PROXIES) == "10.0.0.1"
    near = ",".join(["203.0.113.9", *["10.0.0.1"] * (MAX_HOPS - 1)])
    assert client_address("10.0.0.1", [header, near], PROXIES) == "203.0.113.9"


@given(st.text())
def test_no_text_is_a_fault_and_none_is_counted_in_full(text: str):
    assert len(client_address("10.0.0.1", [text], PROXIES)) <= 64
    assert len(client_address(text, [text], PROXIES)) <= 64


def test_one_customers_ipv6_addresses_are_one_client():
    first = client_address("2001:db8::1", [], ())
    assert first == client_address("2001:db8::ffff", [], ())
    assert first != client_address("2001:db8:0:1::1", [], ())


def test_a_wrong_proxy_is_refused_with_its_text():
    with pytest.raises(InvalidSetting, match=r"LLMHOST_TRUSTED_PROXIES: 'proxy\.local'"):
        parse_networks("10.0.0.1,proxy.local")
