// What the clients of the load test ask for: a pool of good requests whose lone answers are known, and all kinds of bad manners.
const WORDS =
  'apples pears marbles books has gives takes and then buys loses how many are left in the jug of water'.split(' ');
const FORMS = [
  {
    type: 'json_schema',
    json_schema: {
      schema: {
        type: 'object',
        properties: { n: { type: 'integer' }, ok: { type: 'boolean' } },
        required: ['n', 'ok'],
        additionalProperties: false,
      },
    },
  },
  { type: 'regex', pattern: '(yes|no), [0-9]{1,3}!' },
  { type: 'json_object' },
];

function words(random, count) {
  return Array.from({ length: count }, () => random.of(WORDS)).join(' ');
}

/** Conversations of random lengths, many of which begin alike; each with the engine's word for the same. */
export function makePool(random, size) {
  const prefixes = Array.from({ length: 5 }, (_, i) => `Case ${i}. ${words(random, random.between(40, 160))}.`);
  return Array.from({ length: size }, (_, index) => {
    const text = `${words(random, random.between(1, 60))}? What is ${random.below(100)} + ${random.below(100)}?`;
    const maxTokens = random.between(1, 64);
    if (index % 5 === 4) {
      // Any ids do: the answer is what the model makes of them.
      const ids = Array.from({ length: random.between(1, 500) }, () => random.between(10, 250));
      // Longer than admission keeps pages for: these push others out.
      const length = random.between(1, 250);
      return {
        path: '/v1/completions',
        body: { prompt: ids, max_tokens: length, ignore_eos: true },
        alone: (engine) => engine.generate(ids, { temperature: 0, maxTokens: length, ignoreEos: true }),
      };
    }
    const messages = [
      ...(random.next() < 0.7 ? [{ role: 'system', content: random.of(prefixes) }] : []),
      { role: 'user', content: text },
    ];
    const form = index % 10 === 1 ? random.of(FORMS) : undefined;
    return {
      path: '/v1/chat/completions',
      body: { messages, max_tokens: maxTokens, ...(form && { response_format: form }) },
      alone: (engine) => engine.chat(messages, { temperature: 0, maxTokens, ...(form && { format: formatOf(form) }) }),
    };
  });
}

function formatOf(form) {
  if (form.type === 'regex') return form;
  return form.type === 'json_object' ? { type: 'json' } : { type: 'schema', schema: form.json_schema.schema };
}

/** What an answer is compared by, from the engine's result. */
export function answerOf({ text, reasoning, finishReason, usage }) {
  return { text, reasoning, finish: finishReason, prompt: usage.promptTokens, completion: usage.completionTokens };
}

/** The same from a whole answer on the wire. */
export function wireAnswer({ choices: [choice], usage }) {
  return {
    text: choice.message?.content ?? choice.text ?? '',
    reasoning: choice.message?.reasoning_content ?? '',
    finish: choice.finish_reason,
    prompt: usage.prompt_tokens,
    completion: usage.completion_tokens,
  };
}

/** The same from the events of a stream, until `enough` says so of one. Throws where the stream is none of a good answer. */
export async function streamedAnswer(response, enough = () => false) {
  const answer = { text: '', reasoning: '', finish: undefined, prompt: undefined, completion: undefined };
  let ended = false;
  let rest = '';
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const events = (rest + decoder.decode(read.value, { stream: true })).split('\n\n');
    rest = events.pop();
    for (const event of events) {
      if (event.startsWith(':')) continue;
      const data = event.slice('data: '.length);
      if (data === '[DONE]') {
        ended = true;
        continue;
      }
      const { error, choices, usage } = JSON.parse(data);
      if (error) throw new Error(`the stream failed: ${error.message}`);
      const [choice] = choices;
      answer.text += choice?.delta?.content ?? choice?.text ?? '';
      answer.reasoning += choice?.delta?.reasoning_content ?? '';
      answer.finish = choice?.finish_reason ?? answer.finish;
      if (usage) Object.assign(answer, { prompt: usage.prompt_tokens, completion: usage.completion_tokens });
      if (enough()) return undefined; // an aborted body of Node 20's fetch may never end: it is not waited for
    }
  }
  if (!ended) throw new Error('the stream ended without [DONE]');
  return answer;
}

/** Bodies that get a 4xx with a message; `code` where clients act on it. */
export const MALFORMED = [
  { body: '{"messages": [' },
  { body: '[]' },
  { body: '{"messages": "hello"}' },
  { body: '{"messages": []}' },
  { body: '{"messages": [{"role": "wizard", "content": "x"}]}' },
  { body: '{"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}' },
  { body: '{"messages": [{"role": "user", "content": "x"}], "n": 3}' },
  { body: '{"messages": [{"role": "user", "content": "x"}], "max_tokens": -5}' },
  { body: '{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "regex", "pattern": "[a"}}' },
  { body: Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d]) },
  { body: `${'['.repeat(5000)}${']'.repeat(5000)}` },
  {
    body: JSON.stringify({ model: 'no/such:model', messages: [{ role: 'user', content: 'x' }] }),
    code: 'model_not_found',
  },
  {
    body: JSON.stringify({ messages: [{ role: 'user', content: 'too long '.repeat(40_000) }] }),
    code: 'context_length_exceeded',
  },
];
