"""What can be asked of an open page about its looks, as JavaScript expressions.

All of them first open whatever is folded, so that nothing escapes by being closed.
"""

from __future__ import annotations

UNFOLD = "document.querySelectorAll('details').forEach(one => { one.open = true })"

OVERFLOW = """
(() => {
  const page = document.documentElement
  if (page.scrollWidth <= innerWidth) return []
  const wide = [...document.querySelectorAll('body *')].filter(one =>
    one.getBoundingClientRect().left + one.scrollWidth > innerWidth + 1 &&
    !one.closest('.scroll, pre, nav ul'))
  const named = wide.slice(0, 5).map(one => one.outerHTML.slice(0, 120))
  return [`the page is ${page.scrollWidth} wide`, ...named]
})()
"""
"""What makes the page wider than its window; a list that ought to be empty."""

CONTRAST = """
(() => {
  const parse = text => { const found = text.match(/[\\d.]+/g).map(Number)
    return found.length < 4 ? [...found, 1] : found }
  const over = (top, below) =>
    [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1)
  const linear = value => { const c = value / 255
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4 }
  const light = c => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2])
  const behind = element => {
    const layers = []
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor)
      if (colour[3] > 0) layers.push(colour)
      if (colour[3] === 1) break
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1])
  }
  const found = []
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  let seen = 0
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement
    const text = walker.currentNode.textContent.trim()
    if (!text || element.closest('style, title, desc') || !element.getClientRects().length) continue
    const style = getComputedStyle(element)
    const below = behind(element)
    const ink = over(parse(element.namespaceURI.endsWith('svg') ? style.fill : style.color), below)
    const [dark, bright] = [light(ink), light(below)].sort((a, b) => a - b)
    const ratio = (bright + 0.05) / (dark + 0.05)
    seen += 1
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)}: ${text.slice(0, 40)}`)
  }
  return {seen, found}
})()
"""
"""How many texts there are, and those with a contrast below 4.5 to what lies behind them."""

NAMELESS = """
[...document.querySelectorAll('svg, img')].filter(one =>
  !one.closest('[aria-hidden=true]') && !(one.getAttribute('role') === 'img' && (
    (one.getAttribute('aria-label') || '').trim() ||
    (one.getAttribute('aria-labelledby') || '').split(' ').some(id =>
      id && (document.getElementById(id)?.textContent || '').trim())))
).map(one => one.outerHTML.slice(0, 120))
"""
"""Pictures that a screen reader has no name for."""

DEAD_LINKS = """
[...document.querySelectorAll('a[href^="#"]')].filter(one =>
  !document.getElementById(decodeURIComponent(one.hash.slice(1)))).map(one => one.outerHTML)
"""
"""Links into the page that lead nowhere."""

SAME_IDS = """
(() => { const ids = [...document.querySelectorAll('[id]')].map(one => one.id)
  return ids.filter((id, place) => ids.indexOf(id) !== place) })()
"""
"""Ids that occur more than once."""
