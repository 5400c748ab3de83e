/** Markdown as it grows: blocks that stay the same are drawn once. */
import type { Token } from 'marked';
import { memo } from 'preact/compat';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { copyText } from './copy.ts';
import { blocks, blockTree } from './markdown.ts';
import { katex } from './math.ts';
import { words } from './words.ts';

interface BlockProps {
  readonly block: Token;
}

const Block = memo(
  function Block({ block }: BlockProps) {
    const place = useRef<HTMLDivElement>(null);
    useLayoutEffect(() => place.current?.replaceChildren(blockTree(block)), [block.raw, katex.value, words.value]);
    return <div class="block" ref={place} />;
  },
  (before, after) => before.block.raw === after.block.raw,
);

async function copyCode({ target }: Event): Promise<void> {
  if (!(target instanceof HTMLElement) || !target.matches('[data-copy]')) return;
  await copyText(target.closest('.code')?.querySelector('code')?.textContent ?? '');
  target.textContent = words.value.copied;
  setTimeout(() => {
    target.textContent = words.value.copy;
  }, 1500);
}

/** The same listener is added once, however often it is drawn. */
function listen(element: HTMLElement | null): void {
  element?.addEventListener('click', copyCode);
}

export function MarkdownView({ text }: { readonly text: string }) {
  return (
    <div class="markdown" ref={listen}>
      {blocks(text).map((block, index) => (
        <Block key={index} block={block} />
      ))}
    </div>
  );
}
