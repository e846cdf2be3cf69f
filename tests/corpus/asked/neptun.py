"""Neptun: its stream in three protocols, and the chats that are kept."""

from typing import Any

from tests.corpus.request import SSE, Request, ask, post, user
from tests.corpus.scripted import BROKEN, FAILING, MUTE, NO_TEMPLATE, PLAIN
from tests.e2e.scripted_app import FIRST

HELLO = {"messages": [user("What do bees do?")]}
TURNS = {
    "messages": [user("Hi"), {"role": "assistant", "content": "Hello."}, user("What do bees do?")]
}


def chat(
    name: str, chat_id: str = "-1", body: Any = HELLO, *, model: str = FIRST, **options: Any
) -> Request:
    """Ask as bob."""
    path = f"/api/ai/huggingface/{model}/chat?chat_id={chat_id}"
    return post(name, path + options.pop("more", ""), body, **{"token": "<<bob>>", **options})


def chats(name: str, path: str = "", **options: Any) -> Request:
    """Look at what is kept."""
    return ask(name, f"/api/chats{path}", **{"token": "<<bob>>", **options})


REQUESTS = [
    chat("plain text"),
    chat("events", accept=SSE),
    chat("data stream", more="&stream_protocol=data"),
    chat("text by name, though events are accepted", more="&stream_protocol=text", accept=SSE),
    chat("several turns", body=TURNS, model=PLAIN),
    chat("an unknown protocol", more="&stream_protocol=xml"),
    chat("kept", "1", model=PLAIN),
    chat("kept, a second turn", "1", TURNS, model=PLAIN),
    chat("kept under another name", "a%2Fb", model=PLAIN, accept=SSE),
    chat("an empty chat_id", ""),
    chat("a chat_id that is too long", "x" * 300),
    chat("a chat_id with NUL", "%00"),
    post("no chat_id", f"/api/ai/huggingface/{FIRST}/chat", HELLO, token="<<bob>>"),
    chat("no messages", body={"messages": []}),
    chat("no field messages", body={}),
    chat("a role that is not there", body={"messages": [{"role": "system", "content": "Hi"}]}),
    chat("white space", body={"messages": [user(" \n")]}),
    chat("content that is a list", body={"messages": [user([])]}),
    chat("an unknown field", body={**HELLO, "temperature": 3}, model=PLAIN),
    chat("too long", body={"messages": [user("word " * 60)]}),
    chat("bad JSON", body=b"{"),
    chat("another content type", body=b"{}", content_type="text/plain"),
    chat("an unknown model", model="nobody/nothing"),
    chat("a broken model", model=BROKEN),
    chat("a model without a template", model=NO_TEMPLATE),
    chat("no token", token=""),
    chat("a bad token", token="nonsense"),
    chat("a failure at once", model=MUTE),
    chat("a failure later", "broken", model=FAILING, show="break"),
    chat("a failure later, events", model=FAILING, show="break", accept=SSE),
    chats("all chats", save={"chat_id": "chats.2.id"}),
    chats("some of the chats", "?limit=1&offset=1"),
    chats("chats with limit 0", "?limit=0"),
    chats("chats with limit x", "?limit=x"),
    chats("chats without a token", token=""),
    chats("chats of somebody else", token="<<carol>>"),
    chats("read", "/1"),
    chats("read one that broke off", "/broken"),
    chats("read by id", "/<<chat_id>>"),
    chats("read of somebody else", "/1", token="<<carol>>"),
    chats("read nothing", "/2"),
    chats("rename", "/1", body={"title": "Bees"}, method="PATCH"),
    chats("rename to nothing", "/1", body={"title": ""}, method="PATCH"),
    chats("rename to something long", "/1", body={"title": "x" * 2000}, method="PATCH"),
    chats("rename without a title", "/1", body={}, method="PATCH"),
    chats("rename nothing", "/2", body={"title": "x"}, method="PATCH"),
    chats("delete", "/1", method="DELETE"),
    chats("delete again", "/1", method="DELETE"),
    chats("delete by id", "/<<chat_id>>", method="DELETE"),
    chats("delete without a token", "/1", method="DELETE", token=""),
    chats("chats at the end"),
]
