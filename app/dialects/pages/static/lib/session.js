// Who is signed in here, and tokens that hold. Tabs share it: what is in storage is the truth.

const KEY = "llmhost.session";
const EARLY_S = 60; // an access token is renewed so long before its end: a stream may begin late
let inMemory = null; // where storage is off
const followers = new Set();

/** `{ username, access, refresh }`, or null: nobody. */
export function session() {
  try {
    return JSON.parse(localStorage.getItem(KEY));
  } catch {
    return inMemory;
  }
}

/** Keep tokens, or with null forget them; `ended`: the server did not take them any more. */
export function keepSession(value, ended = false) {
  inMemory = value;
  try {
    if (value === null) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, JSON.stringify(value));
  } catch {
    // storage is off: signed in until the page is left
  }
  for (const follower of followers) follower(value, ended);
}

/** Call a function whenever somebody signs in or out, in another tab too. */
export function followSession(follower) {
  followers.add(follower);
}

window.addEventListener("storage", (event) => {
  if (event.key === KEY) for (const follower of followers) follower(session());
});

/** An access token that holds for a while; null: nobody is signed in. */
export async function accessToken() {
  const now = session();
  if (now === null || endsAt(now.access) - Date.now() / 1000 > EARLY_S) return now?.access ?? null;
  return renew(now.access);
}

/** Exchange the refresh token, once for all tabs; null: the login is over. */
export function renew(old) {
  const exchange = async () => {
    const now = session();
    if (now === null || now.access !== old) return now?.access ?? null; // another tab was first
    const answer = await fetch(new URL("refresh", document.baseURI), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ refresh_token: now.refresh }),
    });
    if (answer.status === 401 || answer.status === 400) {
      keepSession(null, true);
      return null;
    }
    if (!answer.ok) throw new Error(`the server could not renew the sign-in: ${answer.status}`);
    const tokens = await answer.json();
    keepSession({ ...now, access: tokens.access_token, refresh: tokens.refresh_token });
    return tokens.access_token;
  };
  // Locks exist where the connection is trusted; without them two tabs might refresh at once,
  // which only a server that rotates refresh tokens minds.
  return navigator.locks ? navigator.locks.request("llmhost.refresh", exchange) : exchange();
}

function endsAt(token) {
  try {
    return JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"))).exp;
  } catch {
    return 0;
  }
}
