"""The index of the pool of prompt blocks."""

from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.prefix_cache import BLOCK_TOKENS, PrefixCache, block_keys


def test_keys_are_those_of_whole_blocks_and_leave_two_tokens():
    for length in range(4 * BLOCK_TOKENS):
        whole = max(0, length - 2) // BLOCK_TOKENS
        assert len(block_keys(range(length), "")) == whole, length


def test_prompts_share_keys_up_to_the_block_where_they_differ():
    prompt = list(range(100))
    other = [*prompt[:40], 7, *prompt[41:]]
    keys, others = block_keys(prompt, ""), block_keys(other, "")
    assert keys[:2] == others[:2]
    assert not set(keys[2:]) & set(others[2:])


def test_tenants_share_no_key():
    assert not set(block_keys(range(100), "ada")) & set(block_keys(range(100), "bob"))


def test_adapters_share_no_block():
    whose = [("ada", 0), ("ada", 1), ("ada", 2), ("1 ada", 0), ("", 1)]
    keys = [key for tenant, adapter in whose for key in block_keys(range(100), tenant, adapter)]
    assert len(set(keys)) == len(keys) == 5 * len(block_keys(range(100), "ada"))


def test_the_same_tokens_at_another_place_have_another_key():
    keys = block_keys([1] * 100, "")
    assert len(set(keys)) == len(keys) == 6


def test_what_was_kept_is_found_as_far_as_it_goes():
    cache = PrefixCache(8)
    assert cache.extend([b"a", b"b"]) == [(0, 7), (1, 6)]
    assert cache.leading([b"a", b"b", b"c"]) == [7, 6]
    assert cache.leading([b"b", b"a"]) == [6, 7]
    assert cache.leading([b"x", b"a"]) == []


def test_what_is_there_is_not_filled_again():
    cache = PrefixCache(8)
    cache.extend([b"a", b"b"])
    assert [index for index, _ in cache.extend([b"a", b"b", b"c"])] == [2]


def test_the_end_of_the_prompt_used_longest_ago_goes_first():
    cache = PrefixCache(4)
    cache.extend([b"a1", b"a2"])
    cache.extend([b"b1", b"b2"])
    cache.leading([b"a1", b"a2"])
    cache.extend([b"c1"])
    assert len(cache.leading([b"a1", b"a2"])) == 2
    assert len(cache.leading([b"b1", b"b2"])) == 1


def test_a_prompt_larger_than_the_pool_keeps_its_beginning():
    cache = PrefixCache(3)
    keys = [bytes([i]) for i in range(5)]
    assert len(cache.extend(keys)) == 3
    assert len(cache.leading(keys)) == 3


def test_without_a_pool_nothing_is_kept():
    cache = PrefixCache(0)
    assert cache.extend([b"a"]) == []
    assert cache.leading([b"a"]) == []


PROMPTS = st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"]), max_size=5, unique=True)


@settings(deadline=None)
@given(st.integers(0, 5), st.lists(PROMPTS, max_size=30))
def test_each_block_is_found_where_it_was_put(num_blocks, prompts):
    """Chains of a tree: a key stands for the whole beginning of its prompt."""
    cache = PrefixCache(num_blocks)
    pool: dict[int, bytes] = {}
    for prompt in prompts:
        keys = [b"".join(prompt[: i + 1]) for i in range(len(prompt))]
        for index, place in cache.extend(keys):
            pool[place] = keys[index]
        found = cache.leading(keys)
        assert [pool[place] for place in found] == keys[: len(found)]
        assert len(found) == min(len(keys), num_blocks)
        cache.check()
