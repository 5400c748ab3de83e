import { afterEach, describe, expect, test } from 'vitest';
import { byteTokenizer, END } from '../../test/engine/fake-tokenizer.ts';
import { type FormatMatcher, GrammarCompiler, type GrammarOptions, type OutputFormat } from './grammar.ts';

const VOCAB = 260; // two columns more than there are tokens
const open: GrammarCompiler[] = [];
const compiler = (options?: GrammarOptions) => {
  const made = new GrammarCompiler(byteTokenizer, VOCAB, options);
  open.push(made);
  return made;
};
afterEach(() => Promise.all(open.splice(0).map((one) => one.dispose())));

const regex = (pattern: string): OutputFormat => ({ type: 'regex', pattern });
const ENDLESS = regex('((a|b){0,500}c?){0,20000}');

/** What may come next, as characters; `$` is the end. */
function allowed({ mask }: FormatMatcher): string {
  const ids = Array.from({ length: VOCAB }, (_, id) => id).filter((id) => (mask[id >> 5] >>> (id & 31)) & 1);
  return ids.map((id) => (id === END ? '$' : String.fromCharCode(id))).join('');
}

describe('forms', () => {
  test('are followed token by token', async () => {
    const matcher = await compiler().matcher(regex('a(b|c)d?'));
    const seen = [allowed(matcher)];
    for (const letter of 'ac') {
      matcher.accept(letter.charCodeAt(0));
      expect(matcher.ready).toBe(false);
      await matcher.settled;
      expect(matcher.ready).toBe(true);
      seen.push(allowed(matcher));
    }
    expect(seen).toEqual(['a', 'bc', 'd$']);
    matcher.accept('x'.charCodeAt(0));
    await expect(matcher.settled).rejects.toMatchObject({ code: 'NATIVE_FAILED' });
    expect(matcher.ready).toBe(false);
    matcher.dispose();
  });

  test('that take too long are refused, others go on beside them and after them', async () => {
    const forms = compiler({ limitMs: 8000 });
    const running = await forms.matcher(regex('x*'));
    const endless = forms.matcher(ENDLESS);
    let ended = false;
    endless.catch(() => (ended = true));
    running.accept('x'.charCodeAt(0));
    await running.settled;
    expect(ended).toBe(false);
    expect(allowed(running)).toBe('x$');
    await expect(endless).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
      message: expect.stringMatching(/the regex format can be compiled; compiling it takes more than 8 s/),
    });
    running.accept('x'.charCodeAt(0));
    await running.settled;
    expect(allowed(await forms.matcher(regex('q')))).toBe('q');
  });

  test('that are slow get threads of their own, so many at a time', async () => {
    const forms = compiler({ quickMs: -1 });
    const matchers = [];
    for (const letter of 'abc') matchers.push(await forms.matcher(regex(letter)));
    await expect(forms.matcher(regex('d'))).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    expect(allowed(await forms.matcher(regex('b')))).toBe('b'); // known: it has its thread
    matchers[0].dispose();
    expect(allowed(await forms.matcher(regex('d')))).toBe('d');
    expect(matchers.slice(1).map(allowed)).toEqual(['b', 'c']);
    await expect(forms.matcher(regex('a'))).rejects.toMatchObject({ code: 'QUEUE_FULL' }); // its thread went to d
  });

  test('that want too much memory, or are none, are refused with what is wrong', async () => {
    const forms = compiler();
    for (const [format, problem] of [
      [regex('[a'), /Unclosed/],
      [regex(''), /empty/],
      [{ type: 'schema', schema: [] }, /no object/],
      [{ type: 'ebnf', grammar: 'root ::= nothing' }, /nothing/],
      [regex('a'.repeat(2 << 20)), /more than 1048576/],
      [{ type: 'prose' }, /none of json/],
      [{ type: 'schema', schema: { $ref: '#' } }, /no token can follow/],
    ] as [OutputFormat, RegExp][])
      await expect(forms.matcher(format)).rejects.toMatchObject({
        code: 'REQUEST_INVALID',
        message: expect.stringMatching(problem),
      });
    expect(allowed(await forms.matcher(regex('k')))).toBe('k');
  });

  test('that nobody waits for any more are let go at once, one that somebody else waits for is not', async () => {
    const forms = compiler();
    const leave = [0, 1, 2].map(() => new AbortController());
    const [first, second, queued] = [ENDLESS, ENDLESS, regex('never')].map((form, i) =>
      forms.matcher(form, leave[i].signal),
    );
    const next = forms.matcher(regex('q'));
    for (const i of [2, 0]) leave[i].abort();
    for (const one of [first, queued]) await expect(one).rejects.toMatchObject({ code: 'ABORTED' });
    let ended = false;
    for (const one of [second, next]) one.finally(() => (ended = true)).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(ended).toBe(false);
    leave[1].abort();
    await expect(second).rejects.toMatchObject({ code: 'ABORTED' });
    expect(allowed(await next)).toBe('q');
    await expect(forms.matcher(regex('q'), leave[0].signal)).rejects.toMatchObject({ code: 'ABORTED' });
    expect(allowed(await forms.matcher(regex('q'), new AbortController().signal))).toBe('q');
  });

  test('end with the engine', async () => {
    const forms = compiler();
    const matcher = await forms.matcher(regex('a*'));
    const endless = forms.matcher(ENDLESS);
    endless.catch(() => {});
    await forms.dispose();
    await expect(endless).rejects.toMatchObject({ code: 'DISPOSED' });
    await expect(forms.matcher(regex('c'))).rejects.toMatchObject({ code: 'DISPOSED' });
    matcher.accept('a'.charCodeAt(0));
    await expect(matcher.settled).rejects.toMatchObject({ code: 'DISPOSED' });
    matcher.dispose();
  });
});
