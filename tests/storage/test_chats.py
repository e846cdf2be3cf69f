"""What of chats is kept, and how much of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.errors import ChatsFull, UnknownChat
from app.storage.chats import (
    ROW_BYTES,
    Quota,
    Said,
    Turn,
    bytes_of,
    check_room,
    delete_chat,
    find_chat,
    keep_turn,
    messages_of,
    replace_chat,
)
from app.storage.database import Database
from app.storage.models import Chat, User
from tests.databases import KINDS, empty_database


@pytest.fixture(params=KINDS)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with empty_database(request.param, tmp_path) as database:
        await database.migrate()
        yield database


@pytest.fixture
async def ada(database: Database) -> User:
    return await new_user(database, "ada")


async def new_user(database: Database, name: str) -> User:
    async with database.write() as session:
        session.add(user := User(username=name, username_key=name, password_hash="x"))
    return user


async def keep(database: Database, user: User, chat_id: str, question: str, reply: str) -> None:
    turn = Turn(question=question, reply=reply, model_id="m", complete=True)
    async with database.write() as session:
        await keep_turn(session, user.id, chat_id, turn)


async def check(database: Database, user: User, chat_id: str, question: str, quota: Quota) -> None:
    async with database.read() as session:
        await check_room(session, user.id, chat_id, question, quota)


async def test_a_user_has_so_many_chats_and_may_go_on_with_each(database: Database, ada: User):
    quota = Quota(chats=2, num_bytes=0)
    for chat_id in ("1", "2"):
        await check(database, ada, chat_id, "q", quota)
        await keep(database, ada, chat_id, "q", "a")
    await check(database, ada, "1", "q", quota)
    with pytest.raises(ChatsFull, match="there would be 3 chats, at most 2 are kept: delete a"):
        await check(database, ada, "3", "q", quota)
    await check(database, await new_user(database, "bob"), "3", "q", quota)
    async with database.write() as session:
        await delete_chat(session, ada.id, "1")
    await check(database, ada, "3", "q", quota)


async def test_chats_hold_so_many_bytes_and_a_reply_that_was_begun_is_kept(
    database: Database, ada: User
):
    quota = Quota(chats=0, num_bytes=bytes_of("ä" * 100, "b" * 100))
    assert quota.num_bytes == 200 + 100 + 2 * ROW_BYTES
    await check(database, ada, "1", "ä" * 100, quota)
    await keep(database, ada, "1", "ä" * 100, "b" * 5000)
    with pytest.raises(ChatsFull, match=f"at most {quota.num_bytes} are kept"):
        await check(database, ada, "1", "", quota)
    async with database.read() as session:
        chat = await find_chat(session, ada.id, "1")
        assert chat.num_bytes == bytes_of("ä" * 100, "b" * 5000)
        assert [len(message.content) for message in await messages_of(session, chat)] == [100, 5000]
    async with database.write() as session:
        await delete_chat(session, ada.id, "1")
    await check(database, ada, "2", "", quota)


async def test_bytes_of_turns_that_end_at_once_are_all_counted(database: Database, ada: User):
    await asyncio.gather(*(keep(database, ada, "1", "q", "a") for _ in range(20)))
    async with database.read() as session:
        assert (await session.scalars(select(Chat.num_bytes))).all() == [20 * bytes_of("q", "a")]


async def test_zero_is_no_limit(database: Database, ada: User):
    quota = Quota(chats=0, num_bytes=0)
    await keep(database, ada, "1", "q" * 10_000, "a")
    await check(database, ada, "2", "q" * 10_000, quota)


@pytest.mark.parametrize("chat_id", ["\0", "x" * 129, "x" * 100_000])
async def test_an_id_that_no_chat_can_have_is_not_looked_for(ada: User, chat_id: str):
    with pytest.raises(UnknownChat):
        await find_chat(None, ada.id, chat_id)  # type: ignore[arg-type] # it is not asked


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("Question\n\t 1", "Question 1"),
        (" \n" * 5000 + "late", "late"),
        ("a b " * 500_000, "a b " * 50),
        ("x" * 1_000_000, "x" * 200),
        ("a\0b", "a\ufffdb"),
    ],
)
async def test_a_title_is_the_beginning_in_single_spaces(
    database: Database, ada: User, question: str, title: str
):
    await keep(database, ada, "1", question, "a")
    async with database.read() as session:
        assert (await find_chat(session, ada.id, "1")).title == title


async def test_messages_come_in_pages(database: Database, ada: User):
    for number in range(3):
        await keep(database, ada, "1", f"q{number}", f"a{number}")
    async with database.read() as session:
        chat = await find_chat(session, ada.id, "1")
        first = await messages_of(session, chat, limit=4)
        rest = await messages_of(session, chat, after=first[-1].id, limit=4)
        every = await messages_of(session, chat)
    contents = [message.content for message in [*first, *rest]]
    assert contents == ["q0", "a0", "q1", "a1", "q2", "a2"]
    assert [message.content for message in every] == contents


class Text(str):
    """A text that tells into how many words it was split."""

    __slots__ = ()
    words = 0

    def split(self, *arguments, **options):
        words = super().split(*arguments, **options)
        Text.words = len(words)
        return words


async def test_no_more_words_than_a_title_holds_are_split(database: Database, ada: User):
    await keep(database, ada, "1", Text("a " * 100_000), "a")
    assert 0 < Text.words <= 201


async def test_a_chat_that_is_kept_whole_takes_the_place_of_its_turns(
    database: Database, ada: User
):
    await keep(database, ada, "1", "first", "reply")
    said = [Said(role="user", content="other\0", model_id=None, complete=True)]
    kept = {"title": "Mine", "messages": said, "document": '{"a": "ä"}'}
    async with database.write() as session:
        await replace_chat(session, ada.id, "1", quota=Quota(chats=1, num_bytes=0), **kept)
    async with database.read() as session:
        chat = await find_chat(session, ada.id, "1")
        messages = await messages_of(session, chat)
    assert (chat.title, chat.document) == ("Mine", '{"a": "ä"}')
    assert [(message.role, message.content) for message in messages] == [("user", "other\ufffd")]
    assert chat.num_bytes == bytes_of("other\0") + len('{"a": "ä"}'.encode())


async def test_a_turn_from_elsewhere_drops_the_document_that_does_not_know_it(
    database: Database, ada: User
):
    async with database.write() as session:
        quota = Quota(chats=0, num_bytes=0)
        await replace_chat(
            session, ada.id, "1", title="t", messages=[], document="d" * 50, quota=quota
        )
    await keep(database, ada, "1", "question", "reply")
    async with database.read() as session:
        chat = await find_chat(session, ada.id, "1")
    assert (chat.document, chat.num_bytes) == (None, bytes_of("question", "reply"))


async def test_a_chat_kept_whole_is_refused_without_room_and_what_was_there_stays(
    database: Database, ada: User
):
    await keep(database, ada, "1", "question", "reply")
    said = [Said(role="user", content="x" * 500, model_id=None, complete=True)]
    room = bytes_of("x" * 500)
    for chat_id, quota in (
        ("2", Quota(chats=1, num_bytes=0)),
        ("1", Quota(chats=0, num_bytes=room - 1)),
        ("2", Quota(chats=0, num_bytes=room)),  # beside the other
    ):
        with pytest.raises(ChatsFull):
            async with database.write() as session:
                await replace_chat(
                    session, ada.id, chat_id, title="t", messages=said, document=None, quota=quota
                )
    async with database.write() as session:  # in the place of the other there is just enough
        await replace_chat(
            session,
            ada.id,
            "1",
            title="t",
            messages=said,
            document=None,
            quota=Quota(chats=1, num_bytes=room),
        )
