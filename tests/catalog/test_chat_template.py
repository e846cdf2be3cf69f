import pytest

from app.catalog.call_arguments import called_arguments
from app.catalog.chat_template import ChatTemplate
from app.contract.conversation import ChatMessage, Tool, ToolCall
from app.errors import InvalidParameter, ModelBroken

TEMPLATES = {
    "SmolLM2": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
        "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "Llama 3": """
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "Gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role "
        "not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == "
        "'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
        "user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}"
        "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    "Mistral": """{%- set ns = namespace(index=0) %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == "system" %}{%- continue %}{%- endif %}
    {%- if message.role == "user" %}
        {{- " [INST] " + message.content + " [/INST]" }}
    {%- else %}
        {% generation %}{{- " " + message.content|trim + eos_token }}{% endgeneration %}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{% if pad_token is defined %}never{% endif %}
    {% if ns.index > 2 %}
    turns: {{ ns.index }}
    {% endif %}
""",
    "tojson": "{% for m in messages %}{{ m | tojson }}{{ m | tojson(indent=2) }}{% endfor %}",
}
CONVERSATIONS = {
    "one turn": [("user", "Hello <b>&</b> 'quotes' \"é\" 😀")],
    "with a system message": [("system", " Be brief. "), ("user", "Hi\n\nthere ")],
    "three turns": [("user", "Hi"), ("assistant", " Hello! "), ("user", "And now?")],
}
CASES = [
    (name, conversation)
    for name in TEMPLATES
    for conversation in CONVERSATIONS
    if (name, conversation) != ("Gemma", "with a system message")  # it refuses that, see below
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def messages(*turns: tuple[str, str]) -> list[ChatMessage]:
    return [ChatMessage.of(role, content) for role, content in turns]


@pytest.mark.parametrize(("name", "conversation"), CASES)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_text_is_what_transformers_renders(name, conversation, add_generation_prompt):
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    turns = CONVERSATIONS[conversation]
    [theirs], _ = utilities.render_jinja_template(
        conversations=[[{"role": role, "content": content} for role, content in turns]],
        chat_template=TEMPLATES[name],
        add_generation_prompt=add_generation_prompt,
        **TOKENS,
    )
    ours = ChatTemplate(TEMPLATES[name], **TOKENS).render(
        messages(*turns), add_generation_prompt=add_generation_prompt
    )
    assert ours == theirs


def test_a_conversation_that_the_template_refuses_is_the_clients_to_mend():
    template = ChatTemplate(TEMPLATES["Gemma"], **TOKENS)
    with pytest.raises(InvalidParameter, match="System role not supported") as refused:
        template.render(messages(("system", "Be brief."), ("user", "Hi")))
    assert refused.value.field == "messages"
    assert refused.value.value == ["system", "user"]


def test_an_absent_token_is_undefined_and_not_the_word_none():
    source = "{{ bos_token }}{% if eos_token is defined %}{{ eos_token }}{% endif %}|"
    assert ChatTemplate(source).render(messages(("user", "Hi"))) == "|"
    assert ChatTemplate(source, eos_token="</s>").render([]) == "</s>|"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{{ 1 // 0 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_a_hostile_template_gets_nowhere(source):
    with pytest.raises((ModelBroken, InvalidParameter)):
        ChatTemplate(source).render(messages(("user", "Hi")))


def test_a_template_that_is_none_is_a_broken_model():
    with pytest.raises(ModelBroken, match="chat template: line 2"):
        ChatTemplate("a\n{% if %}")


TOOL_TEMPLATES = {
    # In the manner of Hermes 2 Pro and Qwen 2.5.
    "Hermes": """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- 'Call functions in <tool_call></tool_call>. Functions:' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and message.tool_calls %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for call in message.tool_calls %}
            {%- if call.function is defined %}{%- set call = call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- call.name }}
            {{- '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content }}
        {{- '\\n</tool_response><|im_end|>\\n' }}
    {%- elif not (loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
""",
    # In the manner of Llama 3.1.
    "Llama 3.1": """
{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' and loop.first and not tools is none %}
        {{- '<|start_header_id|>user<|end_header_id|>\\n\\nRespond with a function call:\\n\\n' }}
        {%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}
        {{- message.content | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception('This model only supports single tool-calls at once!') }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- '}' }}
        {{- '<|eot_id|>' }}
    {%- elif message.role == 'tool' or message.role == 'ipython' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {{- message.content | tojson if message.content is mapping else message.content }}
        {{- '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
        {{- message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    # In the manner of Mistral 7B v0.3.
    "Mistral tools": """{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if tools is not none and loop.last %}
            {{- '[AVAILABLE_TOOLS] [' }}
            {%- for tool in tools %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, value in tool.function.items() if key != 'return' %}
                    {{- '"' + key + '": ' }}{{- value | tojson }}
                    {%- if not loop.last %}{{- ', ' }}{%- endif %}
                {%- endfor %}
                {{- '}}' }}{%- if not loop.last %}{{- ', ' }}{%- endif %}
            {%- endfor %}
            {{- '][/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST] ' + message.content + '[/INST]' }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in message.tool_calls %}
            {%- set out = call.function | tojson %}
            {{- out }}
            {%- if call.id is not defined or call.id | length != 9 %}
                {{- raise_exception('Tool call IDs should have length 9!') }}
            {%- endif %}
            {%- if not loop.last %}{{- ', ' }}{%- else %}{{- ']' + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message.role == 'tool' %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | string + ', "call_id": "' }}
        {{- message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- ' ' + message.content | trim + eos_token }}
    {%- endif %}
{%- endfor %}
""",
}
TOOL = Tool(
    name="weather",
    description="The weather of a city <b>'é'</b>",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
THEIR_TOOL = {
    "type": "function",
    "function": {
        "name": TOOL.name,
        "description": TOOL.description,
        "parameters": TOOL.parameters,
    },
}
CALLING = [
    ChatMessage.of("user", "Weather in Zürich?"),
    ChatMessage.of(
        "assistant", "", (ToolCall("abc123def", "weather", '{"city": "Zürich", "days": [1, 2.5]}'),)
    ),
    ChatMessage.of("tool", '{"sky": "grey"}', tool_call_id="abc123def", name="weather"),
    ChatMessage.of("assistant", "Grey."),
    ChatMessage.of("user", "And now?"),
]
THEIR_CALLING = [
    {"role": "user", "content": "Weather in Zürich?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "abc123def",
                "type": "function",
                "function": {
                    "name": "weather",
                    "arguments": {"city": "Zürich", "days": [1, 2.5]},
                },
            }
        ],
    },
    {
        "role": "tool",
        "content": '{"sky": "grey"}',
        "tool_call_id": "abc123def",
        "name": "weather",
    },
    {"role": "assistant", "content": "Grey."},
    {"role": "user", "content": "And now?"},
]


@pytest.mark.parametrize("name", TOOL_TEMPLATES)
@pytest.mark.parametrize("tools", [(), (TOOL,)], ids=["no tools", "tools"])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_tools_and_calls_are_rendered_as_transformers_does(name, tools, length):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models

    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), **TOKENS
    ).apply_chat_template(
        THEIR_CALLING[:length],
        tools=[THEIR_TOOL] if tools else None,
        chat_template=TOOL_TEMPLATES[name],
        add_generation_prompt=True,
        tokenize=False,
    )
    ours = ChatTemplate(TOOL_TEMPLATES[name], **TOKENS).render(CALLING[:length], tools)
    assert ours == theirs
    if tools and length in (1, 5):
        assert "weather" in ours, "the tool must be shown or this proves nothing"


def test_whether_a_template_shows_tools_is_read_from_it():
    assert all(ChatTemplate(source).takes_tools for source in TOOL_TEMPLATES.values())
    assert not ChatTemplate(TEMPLATES["SmolLM2"]).takes_tools
    assert not ChatTemplate("{% set tools = 1 %}{{ tools }}{# tools #}").takes_tools


def test_a_developer_is_a_system_where_the_template_has_no_word_of_developers():
    turns = messages(("developer", "Be brief."), ("user", "Hi"))
    assert "<|im_start|>system\nBe brief." in ChatTemplate(TEMPLATES["SmolLM2"]).render(turns)
    knows = "{% for m in messages if m.role == 'developer' %}dev: {{ m.content }}{% endfor %}"
    assert ChatTemplate(knows).render(turns) == "dev: Be brief."


@pytest.mark.parametrize(
    "arguments",
    [
        *("[1]", '"x"', "null", "[" * 9999, "x", "{} x", "{}}", '{"a": 1 b', '{"a": x', '["a'),
        *('{"a": NaN}', '{"a": -Infinity', '{"a": 1e999}', '{"a": [1e999, 2', '{"a": "\\ud800"}'),
    ],
)
def test_arguments_that_are_no_object_are_refused_by_name(arguments):
    turn = ChatMessage.of("assistant", "", (ToolCall("1", "weather", arguments),))
    with pytest.raises(InvalidParameter, match=r"function\.arguments"):
        ChatTemplate(TOOL_TEMPLATES["Hermes"]).render([turn])


WHOLE = r'{"a": [1, {"b": "x\u00e9\"\\"}, true], "é": null, "n": -1.5e3, "o": {}}'


@pytest.mark.parametrize("name", TOOL_TEMPLATES)
def test_arguments_that_were_cut_off_anywhere_are_taken_back(name):
    template = ChatTemplate(TOOL_TEMPLATES[name], **TOKENS)
    for length in range(len(WHOLE) + 1):
        turn = ChatMessage.of("assistant", "", (ToolCall("123456789", "weather", WHOLE[:length]),))
        assert "weather" in template.render([turn], add_generation_prompt=False), WHOLE[:length]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", {}),
        (" ", {}),
        ("{", {}),
        ('{"ci', {}),
        ('{"city"', {}),
        ('{"city": ', {}),
        ('{"city": "Ro', {"city": "Ro"}),
        ('{"city": "R\\', {"city": "R"}),
        (r'{"city": "R\u00', {"city": "R"}),
        (r'{"city": "R\n', {"city": "R\n"}),
        (r'{"city": "R\\', {"city": "R\\"}),
        (r'{"city": "R\ud83e', {"city": "R"}),
        (r'{"city": "R\ud83e\udd', {"city": "R"}),
        ('{"a": 12', {}),
        ('{"a": 12,', {"a": 12}),
        ('{"a": tr', {}),
        ('{"a": [1, {"b": "x", "c', {"a": [1, {"b": "x"}]}),
        ('{"a": {}}', {"a": {}}),
    ],
)
def test_what_came_of_arguments_counts(text, arguments):
    assert called_arguments(text) == arguments


def test_a_tool_without_parameters_takes_an_empty_object():
    shown = ChatTemplate("{{ tools | tojson }}").render([], [Tool(name="now")])
    assert '"parameters": {"type": "object", "properties": {}}' in shown
    assert "description" not in shown
