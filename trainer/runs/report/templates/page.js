// A click on a column's head sorts by it, a second one the other way round; not by the test split.
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
  heads.forEach((head, i) => head.className === 'fixed' || (head.onclick = () => {
    const down = head.ariaSort === 'descending' ? 1 : -1;
    heads.forEach(other => other.ariaSort = null);
    head.ariaSort = down < 0 ? 'descending' : 'ascending';
    const key = row => row.cells[i].dataset.v;
    body.append(...[...body.rows].sort((a, b) => {
      const x = key(a), y = key(b), n = x - y;
      return down * (isNaN(n) ? x.localeCompare(y, undefined, {numeric: true}) : n);
    }));
  }));
  // Words that a run must have, in any column but those of the test split; the curves follow.
  const input = document.querySelector('.filter input'), told = document.querySelector('.filter span');
  const text = new Map(rows.map(row => [row, [...row.cells].filter((cell, i) =>
    heads[i].className !== 'fixed').map((cell, i) => cell.textContent).join(' ').toLowerCase()]));
  input.oninput = () => {
    const words = input.value.toLowerCase().split(/\s+/), seen = new Set();
    rows.forEach(row => {
      row.hidden = !words.every(word => text.get(row).includes(word));
      row.hidden || seen.add(row.dataset.c);
    });
    const left = rows.filter(row => !row.hidden).length;
    told.textContent = left < rows.length ? left + ' of ' + rows.length + ' runs' : '';
    document.querySelectorAll('g[data-c]').forEach(g =>
      g.classList.toggle('out', !seen.has(g.dataset.c)));
  };
}
