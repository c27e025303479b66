// The server: one question, one answer; and pulses that keep coming.

let asking = 0;

/** Says whether something is being waited for. */
function busy(by) {
  asking += by;
  document.getElementById("main").setAttribute("aria-busy", String(asking > 0));
}

/** Answers a question, or says in words why not. */
export async function api(path, signal) {
  busy(1);
  try {
    return await ask(path, signal);
  } finally {
    busy(-1);
  }
}

async function ask(path, signal) {
  let response;
  try {
    response = await fetch(`/api/${path}`, { signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the dashboard does not answer: was it ended?");
  }
  const type = response.headers.get("content-type") ?? "";
  const body = type.startsWith("application/json") ? await response.json() : { error: await response.text() };
  if (!response.ok) throw new Error(body.error || `answer ${response.status}`);
  return body;
}

/** `?a=1&b=2` of what is set. */
export function query(values) {
  const set = Object.entries(values).filter(([, v]) => v !== undefined && v !== null && v !== "");
  return set.length ? `?${new URLSearchParams(set)}` : "";
}

const WAIT_FIRST_S = 1;
const WAIT_MAX_S = 15;
// A pulse comes every second; nothing for so long means that the other end is gone or stuck.
const SILENT_MS = 12_000;

/** Pulses of a run. Tries again where they stop, ever less often, and says when. */
export class Pulses {
  constructor(onPulse, onState) {
    this.onPulse = onPulse;
    this.onState = onState;
    this.wait = WAIT_FIRST_S;
    setInterval(() => this.#watch(), 1000);
    // A browser keeps six connections to one server: a page that nobody looks at gives its own back.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#pause() : this.#resume()));
  }

  /** Follows this run from now on. */
  follow(run) {
    this.run = run;
    this.wait = WAIT_FIRST_S;
    this.#open();
  }

  /** Tries again at once. */
  now() {
    if (this.retryAt) this.#open();
  }

  #open() {
    this.source?.close();
    this.retryAt = null;
    this.heard = Date.now();
    this.onState({ state: "connecting" });
    const source = new EventSource(`/api/runs/${this.run}/pulse`);
    this.source = source;
    source.addEventListener("pulse", (event) => {
      if (source !== this.source) return;
      this.heard = Date.now();
      this.wait = WAIT_FIRST_S;
      this.onState({ state: "open" });
      this.onPulse(JSON.parse(event.data));
    });
    source.onerror = () => source === this.source && this.#failed();
  }

  #pause() {
    this.source?.close();
    this.source = null;
    this.retryAt = null;
  }

  #resume() {
    if (!this.source && this.run !== undefined) this.#open();
  }

  #failed() {
    this.source?.close();
    this.source = null;
    this.retryAt = Date.now() + this.wait * 1000;
    this.wait = Math.min(this.wait * 2, WAIT_MAX_S);
    this.#watch();
  }

  #watch() {
    if (this.source && Date.now() - this.heard > SILENT_MS) return this.#failed();
    if (!this.retryAt) return;
    const left = Math.ceil((this.retryAt - Date.now()) / 1000);
    if (left <= 0) this.#open();
    else this.onState({ state: "waiting", left });
  }
}
