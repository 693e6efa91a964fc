// A click on a column's head sorts by it, a second one the other way round; not by the test split.
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
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
}
