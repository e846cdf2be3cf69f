// The operator's page: what the server is doing, and what may be done about it.

import { html, IconButton, setTheme, chosenTheme, useState, useStore } from "../lib/ui.js";
import { signIn, signOut } from "../lib/api.js";
import { session } from "../lib/session.js";
import { Histogram, Rates } from "./charts.js";
import { duration, histogram, percent, round, total } from "./metrics.js";
import { Accounts } from "./accounts.js";
import { Models } from "./models.js";
import { follow, state } from "./state.js";

const LATENCIES = [
  ["Time to the first token", "llmhost_time_to_first_token_seconds"],
  ["Between two tokens", "llmhost_inter_token_latency_seconds"],
  ["Whole requests", "llmhost_e2e_request_latency_seconds"],
  ["Waiting for a slot", "llmhost_request_queue_time_seconds"],
];

export function App() {
  const { overview, samples, refused, signing, problem, told } = useStore(state, (now) => now);
  return html`<div class="frame">
    <${Header} />
    <main class="stack">
      ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
      ${(refused || signing) && html`<${SignIn} why=${refused ?? "To change users and keys."} />`}
      ${!overview && !refused && !problem && html`<p class="muted">Asking the server…</p>`}
      ${overview && samples.size === 0 && html`<p class="notice">There are no figures: what is between this
        page and the server does not let <code>/metrics</code> through. Ask the server directly.</p>`}
      ${overview && !signing && html`
        ${told && html`<p class=${`notice ${told.bad ? "bad" : ""}`} role=${told.bad ? "alert" : "status"}>${told.words}</p>`}
        <${Now} /><${Latency} /><${Models} /><${Accounts} /><${Errors} />`}
    </main>
  </div>`;
}

function Header() {
  const overview = useStore(state, (now) => now.overview);
  const [theme, draw] = useState(chosenTheme());
  const next = { light: "dark", dark: null }[theme] ?? (theme === null ? "light" : null);
  const leave = () => signOut().catch(() => {}).then(follow); // here it is over in any case
  return html`<header class="top row">
    <h1 class="grow">llmhost <span class="muted small">${overview?.version}</span></h1>
    ${overview && html`<span class="small muted">${overview.username ?? "at the server's machine"}</span>`}
    ${session() !== null && overview && html`<button type="button" class="button small" onClick=${leave}>Sign out</button>`}
    ${session() === null && overview && html`<button type="button" class="button small"
      onClick=${() => state.set({ signing: true })}>Sign in</button>`}
    <a class="button small" href="./">Chat</a>
    <${IconButton} icon="theme" label=${`Theme: ${theme ?? "the system's"}. Change to ${next ?? "the system's"}`}
      onClick=${() => { setTheme(next); draw(next); }} />
  </header>`;
}

function SignIn({ why }) {
  const [problem, setProblem] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    const { username, password } = event.target.elements;
    try {
      await signIn(username.value, password.value);
      state.set({ refused: null, signing: false });
      await follow();
    } catch (error) {
      setProblem(error.message);
    }
  };
  return html`<section class="signin stack" aria-labelledby="signin-title">
    <h2 id="signin-title">Sign in as an administrator</h2>
    <p class="small muted">${why}</p>
    <form class="stack" onSubmit=${submit}>
      <div class="field"><label for="username">Name</label>
        <input id="username" name="username" autocomplete="username" required autocapitalize="none" spellcheck="false" /></div>
      <div class="field"><label for="password">Password</label>
        <input id="password" name="password" type="password" required autocomplete="current-password" /></div>
      ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
      <div><button class="button primary">Sign in</button></div>
    </form>
  </section>`;
}

function Now() {
  const { samples, rates } = useStore(state, (now) => now);
  const of = (stem, wanted) => total(samples, `llmhost_${stem}`, wanted);
  const hits = of("prefix_cache_hits_total");
  const queries = of("prefix_cache_queries_total");
  const kv = (samples.get("llmhost_kv_cache_usage_perc") ?? []).map(({ value }) => value);
  const ended = ["stop", "length", "abort", "error"].map((reason) => [reason,
    of("request_success_total", (labels) => labels.finished_reason === reason) ?? 0]);
  const errors = (samples.get("llmhost_request_errors_total") ?? []).filter(({ value }) => value > 0);
  const started = total(samples, "process_start_time_seconds");
  const figures = [
    ["Running", figure(of("num_requests_running"))],
    ["Waiting", figure(of("num_requests_waiting"))],
    ["Slots", figure(of("slots"))],
    ["KV cache in use", kv.length ? percent(Math.max(...kv)) : "–"],
    ["Prompt tokens from the prefix cache", queries ? percent(hits / queries) : "–"],
    ["Memory", `${round((total(samples, "process_resident_memory_bytes") ?? 0) / 1e9)} GB`],
    ["Up for", started === null ? "–" : uptime(Date.now() / 1000 - started)],
  ];
  return html`<section aria-labelledby="now-title" class="stack">
    <h2 id="now-title">Now</h2>
    <dl class="figures">${figures.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd class="number">${value}</dd></div>`)}</dl>
    <div class="charts">
      <${Rates} rates=${rates} />
      <figure class="chart"><figcaption><h3>Requests since the start</h3></figcaption>
        <table class="plain"><tbody>
          ${ended.map(([reason, count]) => html`<tr key=${reason}><th scope="row">ended: ${reason === "abort" ? "the client went" : reason}</th><td class="number">${round(count)}</td></tr>`)}
          ${errors.map(({ labels, value }) => html`<tr key=${labels.code}><th scope="row">refused or failed: ${labels.code}</th><td class="number">${round(value)}</td></tr>`)}
        </tbody></table></figure>
    </div>
  </section>`;
}

function Latency() {
  const { samples, first } = useStore(state, (now) => now);
  const [recent, setRecent] = useState(false);
  return html`<section aria-labelledby="latency-title" class="stack">
    <div class="row between"><h2 id="latency-title">Latency</h2>
      <label class="row small"><input type="checkbox" checked=${recent} onChange=${(event) => setRecent(event.target.checked)} />
        only since this page was opened</label></div>
    <div class="charts">${LATENCIES.map(([title, stem]) => html`<${Histogram} key=${stem} title=${title}
      data=${histogram(samples, stem, recent ? first : null)} />`)}</div>
  </section>`;
}

function Errors() {
  const errors = useStore(state, (now) => now.overview.errors);
  return html`<section aria-labelledby="errors-title" class="stack">
    <h2 id="errors-title">Last errors and warnings</h2>
    ${errors.length === 0 ? html`<p class="muted">None since the start.</p>` : html`<ol class="errors">
      ${errors.map((error) => html`<li key=${`${error.at}${error.message}`}>
        <p class="tiny muted"><time datetime=${error.at}>${new Date(error.at).toLocaleString()}</time> <span class=${error.level === "warning" ? "warn" : "bad"}>${error.level}</span> ${error.logger}</p>
        <p class="mono small">${error.message}</p>
        ${error.exception && html`<p class="mono small muted">${error.exception}</p>`}</li>`)}</ol>`}
  </section>`;
}

function figure(value) {
  return value === null ? "–" : value.toLocaleString("en");
}

function uptime(seconds) {
  return seconds < 7200 ? duration(seconds) : `${round(seconds / 3600)} h`;
}
