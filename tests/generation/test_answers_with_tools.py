import pytest

from app.contract.conversation import Tool
from app.contract.formats import JsonObject, JsonSchema
from app.contract.generation import ToolChoice
from app.contract.sampling import FinishReason
from app.contract.whole import collect
from app.errors import InvalidParameter
from tests.fakes import FakeService, Step
from tests.generation.asking import asks, says

TOOLS = (Tool(name="now"),)
CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


async def test_a_response_format_becomes_a_constraint_and_tools_too():
    service = FakeService("x")
    with_tools = {"prompt": None, "messages": says("Hi"), "tools": TOOLS}
    for fields in ({}, {"response_format": JsonObject()}, with_tools):
        await collect(await service.start(asks(**fields)))
    assert [bool(request.constraint) for request in service.engine.submitted] == [False, True, True]


async def test_a_refused_schema_takes_no_place():
    service = FakeService("x")
    for schema in ({"not": {}}, {"type": "bogus"}):
        with pytest.raises(InvalidParameter):
            await service.start(asks(response_format=JsonSchema(schema)))
    assert service.engine.in_use == 0


async def test_tools_are_shown_and_their_calls_found():
    service = FakeService(CALL)
    request = asks(prompt=None, messages=says("Hi"), tools=TOOLS)
    whole = await collect(await service.start(request))
    assert "These functions can be called" in service.prompts()[0]
    assert [(call.name, call.arguments) for call in whole.tool_calls] == [("now", "{}")]


async def test_tools_that_may_not_be_called_are_not_shown_and_what_looks_like_a_call_is_text():
    service = FakeService(CALL)
    request = asks(prompt=None, messages=says("Hi"), tools=TOOLS, tool_choice=ToolChoice("none"))
    whole = await collect(await service.start(request))
    assert service.prompts() == ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"]
    assert (whole.text, whole.tool_calls) == (CALL, ())
    assert service.engine.submitted[0].constraint is None


async def test_tools_without_a_conversation_are_refused():
    with pytest.raises(InvalidParameter, match=r"tools is \['now'\], expected messages"):
        await FakeService("x").start(asks(tools=TOOLS))


@pytest.mark.parametrize(
    ("script", "stop", "arguments"),
    [
        (['<tool_call>\n{"name": "now", "arguments": {"zone": "Rome"}}\n</tool_call>'], "Rome",
         '{"zone": "'),
        (['<tool_call>\n{"name": "now", "arguments": {"zone', FinishReason.LENGTH], "never",
         '{"zone'),
    ],
)  # fmt: skip
async def test_a_call_that_is_cut_is_said_to_be(script: list[Step], stop: str, arguments: str):
    request = asks(prompt=None, messages=says("Hi"), tools=TOOLS, stop=(stop,))
    whole = await collect(await FakeService(*script).start(request))
    assert [call.arguments for call in whole.tool_calls] == [arguments]
    assert whole.finished.call_cut


async def test_a_stop_behind_a_call_cuts_nothing():
    request = asks(prompt=None, messages=says("Hi"), tools=TOOLS, stop=("\nDone",))
    whole = await collect(await FakeService(CALL, "\nDone and more").start(request))
    assert [call.arguments for call in whole.tool_calls] == ["{}"]
    assert not whole.finished.call_cut


async def test_a_required_call_that_is_cut_in_its_opening_is_no_text():
    choice = ToolChoice("required")
    request = asks(prompt=None, messages=says("Hi"), tools=TOOLS, tool_choice=choice)
    service = FakeService('<tool_call>\n{"na', FinishReason.LENGTH)
    whole = await collect(await service.start(request))
    assert (whole.text, whole.tool_calls) == ("", ())
