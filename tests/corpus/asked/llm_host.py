"""LLM Host: accounts, keys, and a query's answer in three forms."""

from tests.corpus.request import FORM, NDJSON, SSE, Request, ask, load, post
from tests.corpus.scripted import FAILING, MUTE, NO_TEMPLATE
from tests.e2e.scripted_app import FIRST

ADA = {"username": "ada", "password": "correct horse"}
QUERY = {"query": "What do bees do?"}
STREAMED = "/generate?stream=true"
PAIR = {"ada": "access_token", "ada_refresh": "refresh_token"}
BOUNDARY = "multipart/form-data; boundary=cut"
MULTIPART = (
    b'--cut\r\nContent-Disposition: form-data; name="username"\r\n\r\nada\r\n'
    b'--cut\r\nContent-Disposition: form-data; name="password"\r\n\r\ncorrect horse\r\n--cut--\r\n'
)


def query(name: str, path: str = "/generate", body: object = None, **options: str) -> Request:
    """Ask something as ada."""
    options = {"token": "<<ada>>", **options}
    return post(name, path, QUERY if body is None else body, **options)


REQUESTS = [
    load(FIRST),
    post("register", "/register", ADA),
    post("register others: bob", "/register", {"username": "bob", "password": "correct horse"}),
    post("register others: carol", "/register", {"username": "carol", "password": "correct horse"}),
    post("register again in capitals", "/register", {**ADA, "username": "ADA"}),
    post("register with a short password", "/register", {"username": "eve", "password": "short"}),
    post("register with a bad name", "/register", {"username": "a b\n", "password": "long enough"}),
    post("register with an empty name", "/register", {"username": "", "password": "long enough"}),
    post(
        "register with a long name", "/register", {"username": "x" * 300, "password": "long enough"}
    ),
    post("register without a password", "/register", {"username": "eve"}),
    post("register with a number", "/register", {"username": 3, "password": "long enough"}),
    post("register with a form", "/register", b"username=eve&password=x", content_type=FORM),
    post("log in with a form", "/login", b"username=ada&password=correct+horse", content_type=FORM),
    post("log in with JSON", "/login", ADA, save=PAIR),
    post("log in with multipart", "/login", MULTIPART, content_type=BOUNDARY),
    post("log in as bob", "/login", {**ADA, "username": "bob"}, save={"bob": "access_token"}),
    post("log in as carol", "/login", {**ADA, "username": "carol"}, save={"carol": "access_token"}),
    post("log in with a wrong password", "/login", {**ADA, "password": "wrong"}),
    post("log in as nobody", "/login", {**ADA, "username": "nobody"}),
    post("log in without a password", "/login", b"username=ada", content_type=FORM),
    post("log in with Latin-1", "/login", b"username=\xe9&password=x", content_type=FORM),
    post("log in with plain text", "/login", b"ada", content_type="text/plain"),
    post("refresh", "/refresh", {"refresh_token": "<<ada_refresh>>"}),
    post("refresh with an access token", "/refresh", {"refresh_token": "<<ada>>"}),
    post("refresh with nonsense", "/refresh", {"refresh_token": "nonsense"}),
    post("refresh without a token", "/refresh", {}),
    ask("me", "/me", token="<<ada>>"),
    ask("me without a token", "/me"),
    ask("me with nonsense", "/me", token="nonsense"),
    ask("me with a refresh token", "/me", token="<<ada_refresh>>"),
    ask("me with an unknown key", "/me", token="sk-llmhost-" + "a" * 40),
    ask("me with another scheme", "/me", authorization="Basic YWRhOng="),
    query("query"),
    query("query as a stream of events", STREAMED),
    query("query as events by Accept", STREAMED, accept=SSE),
    query("query as lines of JSON", STREAMED, accept=NDJSON),
    query("query with stream=0", "/generate?stream=0"),
    query("query with stream=maybe", "/generate?stream=maybe"),
    query("query with an unknown field", body={**QUERY, "temperature": 3}),
    query("query that is empty", body={"query": ""}),
    query("query that is a number", body={"query": 3}),
    query("query with a prompt", body={**QUERY, "prompt": "Hi"}),
    query("query that is too long", body={"query": "word " * 60}),
    query("query that is too long, streamed", STREAMED, {"query": "word " * 60}),
    post("query without a token", "/generate", QUERY),
    query("query with nonsense for a token", token="nonsense"),
    load(MUTE),
    query("query that fails"),
    query("query that fails, streamed", STREAMED),
    load(FAILING),
    query("query that fails later"),
    query("query that fails later, events", STREAMED),
    query("query that fails later, lines", STREAMED, accept=NDJSON),
    load(NO_TEMPLATE),
    query("query to a model without a template"),
    post("make a key", "/me/keys", {"name": "laptop"}, token="<<ada>>", save={"key": "key"}),
    post(
        *("make a key that expires", "/me/keys", {"name": "phone", "expires_in_days": 90}),
        token="<<ada>>",
        save={"key_id": "id"},
    ),
    post("make a key without a name", "/me/keys", {}, token="<<ada>>"),
    post("make a key with an empty name", "/me/keys", {"name": " "}, token="<<ada>>"),
    post("make a key for 0 days", "/me/keys", {"name": "x", "expires_in_days": 0}, token="<<ada>>"),
    post("make a key without a token", "/me/keys", {"name": "x"}),
    post("make a key with a key", "/me/keys", {"name": "x"}, token="<<key>>"),
    ask("keys", "/me/keys", token="<<ada>>"),
    ask("keys with a key", "/me/keys", token="<<key>>"),
    ask("me with a key", "/me", token="<<key>>"),
    ask("revoke a key", "/me/keys/<<key_id>>", method="DELETE", token="<<ada>>"),
    ask("revoke it again", "/me/keys/<<key_id>>", method="DELETE", token="<<ada>>"),
    ask("revoke nonsense", "/me/keys/1", method="DELETE", token="<<ada>>"),
    ask("revoke another's key", "/me/keys/<<key_id>>", method="DELETE", token="<<bob>>"),
    post("log out with a key", "/logout", token="<<key>>"),
    post("log out", "/logout", token="<<carol>>"),
    ask("me after logging out", "/me", token="<<carol>>"),
    post("log out without a token", "/logout"),
    post(
        "log in as carol again",
        "/login",
        {**ADA, "username": "carol"},
        save={"carol": "access_token"},
    ),
    post(
        "change the password, wrongly",
        "/me/password",
        {"current_password": "wrong", "new_password": "battery staple"},
        token="<<ada>>",
    ),
    post(
        "change the password to a short one",
        "/me/password",
        {"current_password": "correct horse", "new_password": "short"},
        token="<<ada>>",
    ),
    post("change the password to nothing", "/me/password", {}, token="<<ada>>"),
    post(
        "change the password",
        "/me/password",
        {"current_password": "correct horse", "new_password": "battery staple"},
        token="<<ada>>",
        save={"new": "access_token"},
    ),
    ask("me with a token from before", "/me", token="<<ada>>"),
    ask("me with the new token", "/me", token="<<new>>"),
    post("delete the account, wrongly", "/me/delete", {"password": "wrong"}, token="<<new>>"),
    post("delete the account with a key", "/me/delete", {"password": "x"}, token="<<key>>"),
    post("delete the account", "/me/delete", {"password": "battery staple"}, token="<<new>>"),
    ask("me after the end", "/me", token="<<new>>"),
    ask("me with a key after the end", "/me", token="<<key>>"),
]
