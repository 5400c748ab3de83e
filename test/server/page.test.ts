/**
 * The chat page in a real Chromium, against servers whose model writes what the test says: what readers do with it, and
 * what a hostile answer cannot do to them.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Batch } from '../../src/program/batch.ts';
import type { ServerOptions } from '../../src/server/context.ts';
import { pagePolicy } from '../../src/server/front-page.ts';
import { serveAnswer, type TestServer } from './fixture.ts';
import { gate } from './raw.ts';

const CHROMIUM = [
  process.env.CHROMIUM_PATH ?? '',
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome-stable',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
].find((path) => path !== '' && existsSync(path));

/** Why the browser's tests do not run; they say it where they are listed. */
const SKIP = CHROMIUM === undefined ? ' (skipped: no Chromium here; install one or name it in CHROMIUM_PATH)' : '';

const ARGUMENTS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

const PLAIN = 'First I think.</think>\n\nHello **world**, $x^2$ and\n\n```python\nprint(1)\n```\n';

/** What a page must survive: each line tries to run code, to fetch, or to lead astray. */
const HOSTILE = `Done.</think>

<img src=x onerror="window.pwned=1"> <script>window.pwned=2</script>

<svg onload="window.pwned=3"><circle r=9></svg><iframe srcdoc="<script>parent.pwned=4</script>"></iframe>

[click](javascript:window.pwned=5) [data](data:text/html,<script>alert(1)</script>) [good](https://example.com/a)

![spy](https://example.com/spy.png?secret) <style>body{display:none}</style> <base href="https://example.com/">

<a href="javascript:alert(1)" onclick="window.pwned=6" style="position:fixed">x</a> <form action="https://example.com"><input name=q>

$\\href{javascript:window.pwned=7}{x}$ $\\includegraphics{https://example.com/m.png}$ $\\style{x}{<img src=x onerror=window.pwned=8>}$

\`\`\`"><img src=x onerror=window.pwned=9>
</code><img src=x onerror=window.pwned=10>
\`\`\`

<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.pwned=11&gt;">

<details open ontoggle="window.pwned=12"><summary>y</summary></details>
`;

/** Puts the page of these sources in its place at once: other test files serve and pack it meanwhile. */
function buildPage(): void {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const out = mkdtempSync(join(tmpdir(), 'tandem-page-built-'));
  const vite = ['node_modules/vite/bin/vite.js', 'build', '--config', 'web/vite.config.ts', '--logLevel', 'error'];
  execFileSync(process.execPath, [...vite, '--outDir', out], { cwd: root });
  const place = join(root, 'web', 'dist');
  mkdirSync(place, { recursive: true });
  copyFileSync(join(out, 'index.html'), join(place, 'index.html.new'));
  renameSync(join(place, 'index.html.new'), join(place, 'index.html'));
  rmSync(out, { recursive: true });
}

interface Visit {
  readonly page: Page;
  readonly server: TestServer;
  /** Violations of the policy, faults of the page, requests to anybody else. */
  troubles(): Promise<string[]>;
}

describe(`the chat page${SKIP}`, { skip: CHROMIUM === undefined }, () => {
  const profile = mkdtempSync(join(tmpdir(), 'tandem-page-'));
  const open: TestServer[] = [];
  let context: BrowserContext;

  beforeAll(async () => {
    buildPage();
    context = await chromium.launchPersistentContext(profile, {
      executablePath: CHROMIUM,
      args: ARGUMENTS,
      locale: 'en-US',
      viewport: { width: 1100, height: 800 },
    });
    context.setDefaultTimeout(40_000);
    await context.addInitScript(
      'window.violations = []; addEventListener("securitypolicyviolation", (e) => violations.push([e.violatedDirective, e.blockedURI, e.sample].join(" ")));',
    );
  });
  afterAll(async () => {
    await context?.close();
    rmSync(profile, { recursive: true, force: true });
  });
  afterEach(async () => {
    for (const page of context.pages().slice(1)) await page.close();
    for (const server of open.splice(0)) await server.close();
  });

  async function visit(
    answer: string,
    { pause, options }: { pause?: (batch: Batch) => Promise<void>; options?: Partial<ServerOptions> } = {},
    prepare?: (page: Page) => Promise<unknown>,
  ): Promise<Visit> {
    const server = await serveAnswer(answer, options, pause);
    open.push(server);
    const page = await context.newPage();
    const seen: string[] = [];
    page.on('pageerror', (error) => seen.push(error.message));
    page.on('dialog', (dialog) => {
      seen.push(`dialog: ${dialog.message()}`);
      void dialog.accept();
    });
    page.on('request', (request) => {
      const url = request.url();
      if (!url.startsWith(server.url) && !url.startsWith('data:')) seen.push(url);
    });
    await prepare?.(page);
    await page.goto(server.url);
    await page.waitForSelector('#question');
    return { page, server, troubles: async () => [...seen, ...(await page.evaluate<string[]>('violations'))] };
  }

  async function send(page: Page, text: string): Promise<void> {
    await page.fill('#question', text);
    await page.keyboard.press('Enter');
  }

  const whole = (page: Page) => page.waitForSelector('.answer footer');

  test('sends, streams, folds the thoughts, shows markdown and figures', async () => {
    // Writes `First ` and no more until the page was looked at.
    const seen = gate();
    let written = 0;
    const pause = ({ outputs }: Batch) => (outputs.length > 0 && ++written > 6 ? seen.passed : Promise.resolve());
    const { page, troubles } = await visit(PLAIN, { pause });
    await send(page, 'Say hello');
    await page.waitForSelector('.thinking [aria-expanded=true]');
    await expect.poll(() => page.textContent('.thoughts')).toMatch(/^F/);
    expect(await page.getAttribute('.answer', 'aria-busy')).toBe('true');
    seen.open();
    await whole(page);
    expect(await page.getAttribute('.thinking button', 'aria-expanded')).toBe('false');
    expect(await page.textContent('.answer strong')).toBe('world');
    expect(await page.textContent('.code code .hljs-built_in')).toBe('print');
    await page.waitForSelector('.answer math msup');
    expect(await page.textContent('.timings')).toMatch(/^\d+ tokens · [\d.]+ tok\/s/);
    await page.click('.thinking button');
    expect((await page.textContent('.thoughts'))!.trim()).toBe('First I think.');
    expect(await troubles()).toEqual([]);
  });

  test('stops by Esc and by the button; what was written stays', async () => {
    const { page, server } = await visit(`x</think>${'word '.repeat(300)}`, { pause: () => sleep(50) });
    for (const stop of [() => page.keyboard.press('Escape'), () => page.click('[aria-label=Stop]')]) {
      await page.keyboard.press('Control+k');
      await send(page, 'Talk');
      await page.waitForSelector('.markdown:has-text("word word")');
      await stop();
      await page.waitForSelector('text=Stopped');
      expect((await page.textContent('.answer'))!.length).toBeLessThan(1400);
      expect(await page.evaluate('document.activeElement.id')).toBe('question');
    }
    // The server was told: nothing runs on.
    await expect.poll(() => server.models.peek('')?.stats().running).toBe(0);
  });

  test('thoughts that no answer followed stay open; lines end where the model ends them', async () => {
    const { page } = await visit('One thought\nand another');
    await send(page, 'Think');
    await page.waitForSelector('.answer footer');
    await page.waitForSelector('.thoughts:has-text("and another")');
    expect(await page.locator('.thoughts br').count()).toBe(1);
  });

  test('opens ready to be written to; a new question comes into view wherever the reader was', async () => {
    const { page } = await visit(`x</think>${'line\n\n'.repeat(80)}`);
    await page.waitForSelector('#question:focus');
    await page.keyboard.type('Long');
    await page.keyboard.press('Enter');
    await whole(page);
    await page.evaluate('document.querySelector(".conversation").scrollTop = 0');
    await sleep(100);
    await send(page, 'Again');
    await page.waitForSelector('.answer >> nth=1 >> footer');
    const below =
      '(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight)(document.querySelector(".conversation"))';
    await expect.poll(() => page.evaluate<number>(below)).toBeLessThan(3);
  });

  test('the list says what is being answered; an answer cut off by a reload says that it stopped', async () => {
    const { page } = await visit(`x</think>${'word '.repeat(300)}`, { pause: () => sleep(10) });
    await send(page, 'Talk');
    await page.waitForSelector('.markdown:has-text("word word")');
    await page.keyboard.press('Control+k');
    await page.waitForSelector('.sidebar li:has-text("Talk") .live');
    await page.fill('input[type=search]', 'zebra');
    await page.waitForSelector('.sidebar >> text=Nothing found');
    await page.reload();
    await page.click('.sidebar .title');
    await page.waitForSelector('.answer >> text=Stopped');
    expect(await page.locator('.sidebar .live').count()).toBe(0);
  });

  test('stress beside Chinese punctuation, ranges with tildes, aligned equations', async () => {
    const { page, troubles } = await visit(
      String.raw`x</think>里的**水（清水）**不能洒，3~5 天，10~15 天，~~没有~~。

$$\begin{aligned} f(x) &= (x+1)^2 \\ &= x \end{aligned}$$`,
    );
    await send(page, 'Show');
    await whole(page);
    expect(await page.locator('.markdown strong').allTextContents()).toEqual(['水（清水）']);
    expect(await page.locator('.markdown del').allTextContents()).toEqual(['没有']);
    await page.waitForSelector('mtd');
    // The signs of equality stand beneath each other.
    const lefts = await page.evaluate<number[]>(
      '[...document.querySelectorAll("mtd:nth-child(2) mo")].filter((e) => e.textContent === "=").map((e) => e.getBoundingClientRect().left)',
    );
    expect(lefts).toHaveLength(2);
    expect(Math.abs(lefts[0] - lefts[1])).toBeLessThan(2);
    expect(await troubles()).toEqual([]);
  });

  test('edits a question, answers again', async () => {
    const { page, troubles } = await visit(PLAIN);
    await send(page, 'First');
    await whole(page);
    await send(page, 'Second');
    await page.waitForSelector('.answer >> nth=1 >> footer');
    await page.click('.question >> nth=0 >> [aria-label=Edit]', { force: true });
    await page.fill('.editing textarea', 'Changed');
    await page.keyboard.press('Enter');
    await expect.poll(() => page.locator('.question p').allTextContents()).toEqual(['Changed']);
    await whole(page);
    await page.evaluate('document.querySelector(".answer").dataset.old = "1"');
    await page.click('[aria-label="Answer again"]');
    await page.waitForSelector('.answer:not([data-old]) footer');
    expect(await page.locator('.answer').count()).toBe(1);
    expect(await troubles()).toEqual([]);
  });

  test('keeps conversations over a reload; renames, finds and deletes them', async () => {
    const { page } = await visit(PLAIN);
    for (const question of ['About apples', 'About pears']) {
      await page.keyboard.press('Control+k');
      await send(page, question);
      await whole(page);
    }
    await page.reload();
    await page.waitForSelector('.answer strong');
    const titles = () => page.locator('.sidebar .title').allTextContents();
    expect(await titles()).toEqual(['About pears', 'About apples']);
    await page.click('[aria-label="Rename: About apples"]', { force: true });
    await page.fill('.rename', 'Fruit');
    await page.keyboard.press('Enter');
    expect(await titles()).toEqual(['About pears', 'Fruit']);
    await page.fill('input[type=search]', 'apples');
    expect(await titles()).toEqual(['Fruit']);
    await page.fill('input[type=search]', '');
    await page.click('[aria-label="Delete: About pears"]', { force: true });
    await page.reload();
    await page.waitForSelector('.sidebar .title');
    expect(await titles()).toEqual(['Fruit']);
  });

  test('a hostile answer runs nothing, fetches nothing and breaks no rule of the policy', async () => {
    const { page, troubles } = await visit(HOSTILE);
    await send(page, 'Attack');
    await whole(page);
    await page.waitForSelector('.markdown math');
    await page.reload();
    await page.waitForSelector('.markdown math');
    await sleep(300);
    expect(await page.evaluate('window.pwned')).toBeUndefined();
    const forbidden = 'img, script, svg, iframe, style, form, input, base, object, embed, details, mglyph, [style]';
    expect(await page.locator(`.markdown :is(${forbidden})`).count()).toBe(0);
    const attributes = await page.evaluate<string[]>(
      '[...document.querySelectorAll(".markdown *")].flatMap((e) => e.getAttributeNames())',
    );
    expect(attributes.filter((name) => name.startsWith('on'))).toEqual([]);
    const links = await page.evaluate<string[][]>(
      '[...document.querySelectorAll(".markdown [href]")].map((a) => [a.getAttribute("href"), a.target, a.rel])',
    );
    expect(links.length).toBe(2);
    for (const [href, target, rel] of links) {
      expect(href).toMatch(/^https:\/\/example\.com\/(a$|spy\.png)/);
      expect([target, rel]).toEqual(['_blank', 'noopener noreferrer']);
    }
    expect(await troubles()).toEqual([]);
  });

  test('formulas keep their alphabets; wide tables and code scroll in their place on a phone', async () => {
    const cells = Array.from({ length: 12 }, (_, i) => `column ${i}`).join(' | ');
    const rows = `| ${cells} |\n|${'---|'.repeat(12)}\n| ${cells} |`;
    const formulas = String.raw`$\mathbb{R}$ $\mathbf{x1}$ $\mathcal{L}$ $\mathfrak{g}$ $\mathtt{k}$ $\mathrm{softmax}$ $\textbf{b}$ $\boldsymbol{\alpha}$`;
    const { page, troubles } = await visit(`x</think>${formulas}\n\n${rows}\n\n\`\`\`\n${'long '.repeat(60)}\n\`\`\``);
    await page.setViewportSize({ width: 390, height: 844 });
    await send(page, 'Show');
    await whole(page);
    await page.waitForSelector('math');
    expect(await page.locator('math').allTextContents()).toEqual(['ℝ', '𝐱𝟏', 'ℒ', '𝔤', '𝚔', 'softmax', '𝐛', '𝜶']);
    expect(await page.locator('.block > code').count()).toBe(0);
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(390);
    for (const place of ['.table', '.code pre'])
      expect(
        await page.evaluate(
          `(() => { const e = document.querySelector('${place}'); return e.scrollWidth > e.clientWidth; })()`,
        ),
      ).toBe(true);
    // The heads of the table are one line each: cells are as wide as they want to be.
    expect(await page.evaluate('document.querySelector(".table th").clientHeight')).toBeLessThan(50);
    expect(await troubles()).toEqual([]);
  });

  test('the keyboard does it all: write, stop, start anew, edit, answer again', async () => {
    const { page, server } = await visit(PLAIN);
    await page.evaluate('document.activeElement.blur()');
    await page.keyboard.press('/');
    await page.keyboard.type('First line');
    await page.keyboard.press('Shift+Enter');
    await page.keyboard.type('second');
    await page.keyboard.press('Enter');
    await whole(page);
    expect(await page.textContent('.question p')).toBe('First line\nsecond');
    await page.focus('.question [aria-label=Edit]');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.editing textarea:focus');
    await page.keyboard.press('Escape');
    await page.waitForSelector('.question p');
    await page.focus('[aria-label="Answer again"]');
    await page.keyboard.press('Enter');
    await whole(page);
    await page.keyboard.press('Control+k');
    expect(await page.evaluate('document.activeElement.id')).toBe('question');
    expect(await page.locator('.question').count()).toBe(0);
    expect(server.models.peek('')!.stats().running).toBe(0);
  });

  test('on a touch screen Enter starts a line, the button sends', async () => {
    const { page } = await visit(PLAIN, {}, (page) =>
      page.addInitScript('window.matchMedia = (query) => ({ matches: query === "(pointer: coarse)" })'),
    );
    await page.fill('#question', 'a');
    await page.press('#question', 'Enter');
    await page.type('#question', 'b');
    expect(await page.inputValue('#question')).toBe('a\nb');
    await page.click('[aria-label=Send]');
    await page.waitForSelector('.answer footer');
    expect(await page.textContent('.question p')).toBe('a\nb');
  });

  test('is one small file', () => {
    const file = fileURLToPath(new URL('../../web/dist/index.html', import.meta.url));
    expect(gzipSync(readFileSync(file)).length).toBeLessThan(200_000);
  });

  test('asks for the key the server wants, and sends it on', async () => {
    const { page } = await visit(PLAIN, { options: { apiKeys: ['sesame'] } });
    await page.fill('dialog input', 'wrong');
    await page.keyboard.press('Enter');
    await page.fill('dialog input', 'sesame');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.top-bar >> text=org/scripted:1', { state: 'attached' });
    await send(page, 'Hello');
    await whole(page);
    expect(await page.textContent('.answer strong')).toBe('world');
  });

  test('says in words what the server refuses', async () => {
    const { page } = await visit(PLAIN);
    await send(page, 'too long '.repeat(1000));
    expect(await page.textContent('[role=alert]')).toMatch(/^The server refused: .*\d/);
    await page.waitForSelector('[aria-label="Try again"]');
  });

  test('shows tool calls and the settings reach the request', async () => {
    let body: Record<string, unknown> = {};
    const { page } = await visit(PLAIN, {}, (page) =>
      page.route('**/v1/chat/completions', (route) => {
        body = route.request().postDataJSON() as Record<string, unknown>;
        const chunk = (delta: object) => `data: ${JSON.stringify({ choices: [{ index: 0, delta }] })}\n\n`;
        const call = (more: object) => chunk({ tool_calls: [{ index: 0, ...more }] });
        const calls = [
          call({ id: 'c1', function: { name: 'weather', arguments: '{"city"' } }),
          call({ function: { arguments: ':"Bern"}' } }),
        ];
        return route.fulfill({ contentType: 'text/event-stream', body: `${calls.join('')}data: [DONE]\n\n` });
      }),
    );
    await page.click('[aria-label=Settings]');
    await page.fill('.settings textarea >> nth=0', 'Be brief.');
    await page.fill('.settings label:has-text("Temperature") input', '0.33');
    await page.fill('.settings label:has-text("Seed") input', '7');
    await page.fill('.settings textarea >> nth=1', '{"logprobs": true}');
    await page.selectOption('.settings label:has-text("Thinking") select', 'off');
    await page.keyboard.press('Escape');
    await page.keyboard.press('/');
    await page.keyboard.type('Weather?');
    await page.keyboard.press('Enter');
    await page.click('.call summary');
    expect(await page.textContent('.call')).toBe('Calls weather{"city":"Bern"}');
    expect(body).toMatchObject({ temperature: 0.33, seed: 7, logprobs: true, enable_thinking: false, stream: true });
    expect(body.messages).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Weather?' },
    ]);
  });

  test('shows which experts fire where the server tells, and no door to them where not', async () => {
    const quiet = await visit(PLAIN);
    await quiet.page.waitForSelector('.model, .top-bar select');
    await sleep(300);
    expect(await quiet.page.locator('[aria-label=Experts]').count()).toBe(0);
    const data = { layers: [1, 2], experts: 4, fired: [[0, 3], [2]], times: [[1, 9], [2]], place: 'mapped' };
    const { page } = await visit(PLAIN, {}, (page) =>
      page.route('**/experts/stream', (route) =>
        route.fulfill({ contentType: 'text/event-stream', body: `data: ${JSON.stringify(data)}\n\n` }),
      ),
    );
    await page.click('button[aria-label=Experts]');
    await page.waitForSelector('.experts >> text=3 of 8 experts warm · served from the mapped file');
    const lit = await page.evaluate(
      '(() => { const c = document.querySelector("canvas"); const d = c.getContext("2d").getImageData(0, 0, 4, 2).data; return [...Array(8).keys()].filter((i) => d[i * 4 + 3] > 30); })()',
    );
    expect(lit).toEqual([0, 3, 6]);
    const bright = '[...document.querySelector("canvas").getContext("2d").getImageData(0, 0, 4, 1).data]';
    const alpha = await page.evaluate<number[]>(bright);
    expect(alpha[15]).toBeGreaterThan(2 * alpha[3]); // fired more often
  });

  test('every control has a name; a phone has room; Chinese readers get Chinese', async () => {
    const { page } = await visit(PLAIN);
    await send(page, 'Hello');
    await whole(page);
    await page.click('[aria-label=Settings]');
    const nameless = await page.evaluate(
      '[...document.querySelectorAll("button, input, select, textarea, canvas")].filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML)',
    );
    expect(nameless).toEqual([]);
    await page.selectOption('.settings label:has-text("Language") select', 'zh');
    await page.waitForSelector('h2:has-text("设置")');
    expect(await page.getAttribute('html', 'lang')).toBe('zh-CN');
    await page.keyboard.press('Escape');
    await page.setViewportSize({ width: 360, height: 640 });
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360);
    await page.click('[aria-label="显示对话列表"]');
    await page.waitForSelector('.sidebar.open');
  });
});

test('the policy names every block by its hash and nothing else', () => {
  const policy = pagePolicy('<style>a{}</style><script type="module">const text = "<style>b{}";</script>');
  expect(policy.match(/'sha256-[\w+/]{43}='/g)).toHaveLength(2);
  expect(policy).not.toContain('unsafe');
  expect(policy).toContain("default-src 'none'");
});
