"""Bodies written by hand: what the OpenAPI document can't say, such as a whole tool call.

Beginnings of mutations. Texts in `<<…>>` stand for what only a running server gives out.
"""

from typing import Any, Final

PASSWORD: Final = "a password for the fuzzer"  # noqa: S105 # of accounts that live for minutes
_HI: Final = {"role": "user", "content": "Say hello."}
_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z]+$"},
        "ages": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 3},
        "kind": {"enum": ["a", "b", None, 3, 1.5]},
        "next": {"$ref": "#/$defs/next"},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
    "$defs": {"next": {"anyOf": [{"type": "null"}, {"type": "string", "format": "date"}]}},
}
_FUNCTION: Final = {"name": "look", "description": "Look", "parameters": _SCHEMA}
_TOOL: Final = {"type": "function", "function": {**_FUNCTION, "strict": True}}
_CALL: Final = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"name": "a", "kind": "b"}'},
}
_FORMAT: Final = {"type": "json_schema", "json_schema": {"name": "s", "schema": _SCHEMA}}


def written(model: str) -> dict[str, list[Any]]:
    """Bodies by path."""
    chat: dict[str, Any] = {"model": model, "messages": [_HI], "max_tokens": 3}
    completion: dict[str, Any] = {"model": model, "prompt": "Once upon a time", "max_tokens": 3}
    response: dict[str, Any] = {"model": model, "input": "Say hello.", "max_output_tokens": 3}
    account = {"username": "<<name>>", "password": PASSWORD}
    return {
        "/generate": [
            {"prompt": "Hello", "max_length": 2, "raw": True, "seed": 1},
            {"prompt": "Hello", "max_length": 3, "temperature": 0.7, "top_p": 0.9, "top_k": 40},
            {"prompt": "Hello", "max_tokens": 2, "stream": True, "stop": ["a", "\n"]},
            {"prompt": "Hello", "max_tokens": 2, "repetition_penalty": 1.2, "system_prompt": "Be."},
            {"query": "What is the capital of France?"},
        ],
        "/chat": [
            {"messages": [_HI], "max_length": 3, "temperature": 0.0, "do_sample": False},
            {
                "messages": [{"role": "system", "content": "Be."}, _HI],
                "max_length": 2,
                "stream": True,
            },
        ],
        "/generate/batch": [{"prompts": ["Hello", "One"], "max_length": 2, "seed": 3}],
        "/v1/chat/completions": [
            {**chat, "temperature": 0.5, "top_p": 0.5, "min_p": 0.1, "top_k": 5, "seed": -1},
            {**chat, "n": 2, "logprobs": True, "top_logprobs": 3, "logit_bias": {"100": -100}},
            {**chat, "stream": True, "stream_options": {"include_usage": True}, "stop": "e"},
            {**chat, "frequency_penalty": 1.5, "presence_penalty": -2, "repetition_penalty": 1.3},
            {**chat, "ignore_eos": True, "min_tokens": 1, "stop_token_ids": [2, 5]},
            {**chat, "response_format": _FORMAT},
            {**chat, "response_format": {"type": "json_object"}},
            {**chat, "tools": [_TOOL], "tool_choice": "required", "parallel_tool_calls": False},
            {
                **chat,
                "tools": [{"type": "function", "function": _FUNCTION}],
                "tool_choice": {"type": "function", "function": {"name": "look"}},
                "messages": [
                    _HI,
                    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "nothing"},
                ],
            },
            {
                **chat,
                "messages": [
                    {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
                    {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "a"},
                    {"role": "assistant", "content": "Hello", "refusal": None},
                    {"role": "user", "content": "And?"},
                ],
            },
        ],
        "/v1/completions": [
            {**completion, "logprobs": 2, "echo": True, "n": 2, "best_of": 2},
            {**completion, "prompt": ["a", "b"], "stream": True, "stop": ["x", "yz"]},
            {**completion, "prompt": [1, 2, 3], "suffix": None, "user": "u"},
            {**completion, "prompt": [[1, 2], [3]], "temperature": 0, "seed": 9},
        ],
        "/v1/responses": [
            {**response, "instructions": "Be brief.", "temperature": 0.1, "store": False},
            {**response, "stream": True, "metadata": {"a": "b"}, "truncation": "disabled"},
            {
                **response,
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                    {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c", "output": "nothing"},
                ],
                "tools": [{"type": "function", **_FUNCTION, "strict": True}],
                "tool_choice": "auto",
            },
            {
                **response,
                "text": {"format": {"type": "json_schema", "name": "s", "schema": _SCHEMA}},
            },
        ],
        "/tokenize": [
            {"model": model, "prompt": "Hello", "add_special_tokens": True},
            {"model": model, "messages": [_HI], "add_generation_prompt": True},
        ],
        "/detokenize": [{"model": model, "tokens": [1, 2, 300, 48_000]}],
        "/register": [account],
        "/login": [account, {**account, "grant_type": "password", "scope": ""}],
        "/refresh": [{"refresh_token": "<<refresh>>"}],
        "/me/password": [{"current_password": PASSWORD, "new_password": PASSWORD}],
        "/me/delete": [{"password": "not this one"}],
        "/me/keys": [{"name": "a key"}],
        "/api/chats/{chat_id}": [{"title": "A chat"}],
        "/api/ai/huggingface/{model_publisher}/{model_name}/chat": [
            {"messages": [_HI]},
            {"messages": [_HI, {"role": "assistant", "content": "Hello"}, _HI]},
        ],
        "/models/load": [{"model_id": model}],
        "/models/unload": [{"model_id": f"{model}-not"}],
    }
