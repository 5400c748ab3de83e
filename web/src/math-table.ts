/**
 * Columns of formulas side by side. KaTeX says how they stand by `columnalign` and `columnspacing`, which MathML Core has
 * dropped; classes say it to the style sheet.
 */
export function alignTables(tree: ParentNode): void {
  for (const table of tree.querySelectorAll('mtable')) {
    const sides = table.getAttribute('columnalign')?.split(' ') ?? [];
    const gaps = table.getAttribute('columnspacing')?.split(' ') ?? [];
    const close = (gap: number) => gap >= 0 && Number.parseFloat(gaps[Math.min(gap, gaps.length - 1)]) === 0;
    for (const row of table.children)
      [...row.children].forEach((cell, column) => {
        const side = sides[Math.min(column, sides.length - 1)];
        cell.classList.toggle('to-left', side === 'left');
        cell.classList.toggle('to-right', side === 'right');
        cell.classList.toggle('close-before', close(column - 1));
        cell.classList.toggle('close-after', close(column));
      });
  }
}
