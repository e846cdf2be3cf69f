// Requests to this server, wherever it is mounted, and their errors in the server's own words.

import { accessToken, keepSession, renew, session } from "./session.js";

/** A refusal or failure that the server told. */
export class ApiError extends Error {
  constructor(status, message, retryAfterS = null) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * Send a request as whoever is signed in; returns the Response of a success.
 * `body` is sent as JSON. Throws ApiError, or TypeError where the server can't be reached.
 */
export async function send(path, { method = "GET", body, form, headers = {}, signal } = {}) {
  const attempt = (token) => fetch(new URL(path, document.baseURI), {
    method,
    signal,
    headers: {
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...(token === null ? {} : { Authorization: `Bearer ${token}` }),
      ...headers,
    },
    body: form ?? (body === undefined ? undefined : JSON.stringify(body)),
  });
  const token = await accessToken();
  let answer = await attempt(token);
  if (answer.status === 401 && token !== null && session()?.access === token) {
    const renewed = await renew(token); // the clock of this machine may be wrong
    if (renewed !== null && renewed !== token) answer = await attempt(renewed);
  }
  if (!answer.ok) throw await toError(answer);
  return answer;
}

/** Send a request and read its JSON. */
export async function ask(path, options) {
  const answer = await send(path, options);
  return answer.status === 204 ? null : answer.json();
}

/** The data of server-sent events, one string at a time. */
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (data.length) yield data.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have failed already, which was thrown above
  }
}

/** Sign in; throws ApiError where name or password is wrong. */
export async function signIn(username, password) {
  const form = new URLSearchParams({ username, password });
  keepSession(null);
  const tokens = await ask("login", { method: "POST", form });
  keepSession({ username, access: tokens.access_token, refresh: tokens.refresh_token });
}

/** End this login, here in any case. */
export async function signOut() {
  try {
    await send("logout", { method: "POST" });
  } finally {
    keepSession(null);
  }
}

async function toError(answer) {
  let message = `${answer.status} ${answer.statusText}`;
  const text = await answer.text();
  try {
    const told = JSON.parse(text);
    // the forms of the server's dialects
    message = told.error?.message ?? told.detail ?? told.statusMessage ?? message;
  } catch {
    // a proxy's page: the status says more
  }
  const wait = Number.parseInt(answer.headers.get("Retry-After"), 10);
  return new ApiError(answer.status, String(message), Number.isNaN(wait) ? null : wait);
}
