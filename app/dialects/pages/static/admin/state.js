// What the server says of itself, asked every two seconds while somebody looks, and what can be done.

import { createStore } from "../lib/ui.js";
import { ApiError, ask, send } from "../lib/api.js";
import { parse, total } from "./metrics.js";

const EVERY_MS = 2000;
const KEPT = 150; // five minutes
const COUNTED = { generated: "llmhost_generation_tokens_total", prompt: "llmhost_prompt_tokens_total" };

export const state = createStore({
  refused: null, // why nothing is shown: nobody is signed in who may see it
  signing: false, // somebody wants to sign in, though they may look without
  problem: null, // why what is shown may be old
  overview: null,
  samples: null,
  first: null, // the samples when the page was opened
  rates: [], // `{ at, generated, prompt }`, tokens per second
  users: null,
  told: null, // `{ words, bad }`, what became of the last thing that was done
});

let before = null;
let timer = null;

/** Ask now, and again and again from then on. */
export async function follow() {
  clearTimeout(timer);
  if (!document.hidden) await look();
  timer = setTimeout(follow, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) follow();
});

async function look() {
  try {
    const [overview, metrics] = await Promise.all([
      ask("admin/api/overview"),
      figures(),
    ]);
    take(overview, parse(metrics), Date.now());
    if (state.get().users === null) await lookAtUsers();
  } catch (error) {
    if (error instanceof ApiError && (error.status === 401 || error.status === 403)) {
      before = null;
      state.set({ refused: error.message, overview: null, users: null, rates: [], first: null });
    } else state.set({ problem: `The server can't be reached: ${error.message}` });
  }
}

/** The figures for programs; none where a proxy before the server keeps them to itself. */
async function figures() {
  try {
    return await (await send("metrics")).text();
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return "";
    throw error;
  }
}

function take(overview, samples, at) {
  const counts = Object.fromEntries(
    Object.entries(COUNTED).map(([key, name]) => [key, total(samples, name) ?? 0]),
  );
  let { rates } = state.get();
  if (before !== null) {
    const seconds = (at - before.at) / 1000;
    // a server that was started again counts from 0
    const rate = (key) => Math.max(0, counts[key] - before.counts[key]) / seconds;
    rates = [...rates, { at, generated: rate("generated"), prompt: rate("prompt") }].slice(-KEPT);
  }
  before = { at, counts };
  const first = state.get().first ?? samples;
  state.set({ overview, samples, first, rates, refused: null, problem: null });
}

export async function lookAtUsers() {
  state.set({ users: (await ask("admin/api/users")).users });
}

/** Do something, say what became of it, and look again. `path` may have a body. */
export async function act(path, body, { users = false } = {}) {
  state.set({ told: null });
  try {
    const answer = await ask(path, { method: "POST", body });
    if (users) await lookAtUsers();
    state.set({ told: answer.message === undefined ? null : { words: answer.message, bad: false } });
    await look();
    return answer;
  } catch (error) {
    state.set({ told: { words: error.message, bad: true } });
    return null;
  }
}
