// Requests to the desk. What a rater has said is kept in this browser until the store has it.

const OUTBOX = "rlhf-gym.outbox";

export class Refused extends Error {
  constructor(status, problem, again) {
    super(problem);
    this.status = status;
    this.again = again;  // the same request may work later
  }
}

export async function post(name, body) {
  let response;
  try {
    response = await fetch(`/api/${name}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, "The page's server does not answer.", true);
  }
  if (response.ok) return response.json();
  const text = await response.text();
  let problem = text || `The server said ${response.status}.`, again = false;
  try {
    ({ problem, again } = JSON.parse(text));
  } catch { /* not JSON: the text is the problem */ }
  throw new Refused(response.status, problem, again);
}

// Local storage may be full or forbidden; labelling goes on without it.
export const memory = {
  get(name, otherwise = null) {
    try {
      return JSON.parse(localStorage.getItem(name)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(name, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  },
  remove(name) {
    try {
      localStorage.removeItem(name);
    } catch { /* nothing was kept */ }
  },
};

export function ticket() {
  // randomUUID is there on secure origins only; a page in the local network is none.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0")).join("");
}

function outbox(change) {
  const waiting = memory.get(OUTBOX, {});
  change(waiting);
  if (Object.keys(waiting).length) memory.set(OUTBOX, waiting);
  else memory.remove(OUTBOX);
}

// Sends what must not be lost, until the store has it or refuses it.
// `waiting(problem)` is called before each further attempt and may return true to give up.
export async function deliver(name, body, waiting) {
  outbox((all) => { all[body.ticket] = { name, body }; });
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await post(name, body);
      outbox((all) => { delete all[body.ticket]; });
      return answer;
    } catch (error) {
      if (!error.again || await waiting(error, attempt)) {
        outbox((all) => { delete all[body.ticket]; });
        throw error;
      }
    }
  }
}

// What was on its way when the page was left. The ticket keeps it from being stored twice.
export async function deliverLeftovers() {
  let sent = 0;
  for (const { name, body } of Object.values(memory.get(OUTBOX, {}))) {
    try {
      await post(name, body);
      sent += 1;
    } catch (error) {
      if (error.again) throw error;
    }
    outbox((all) => { delete all[body.ticket]; });
  }
  return sent;
}
