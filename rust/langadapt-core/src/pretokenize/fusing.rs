//! Two steps as one regex: a text is gone over once instead of once for each step.
//!
//! **Why this is exact.** Where the outer step cuts wherever a set of characters begins or ends, the regex of the inner
//! step stays within a piece exactly if its characters are all of the set, or all of the others, and a character of the
//! other side is to it what the end of the text is. So either side has a regex of its own, and the first character
//! decides between the two. What neither matches is cut where the outer step would have cut it.

use regex_syntax::hir::ClassUnicode;

use super::scanner::Scanner;
use super::sets::not;
use super::split::{Behavior, Split};
use super::syntax::Node;

/// `inner` within the pieces of `outer`; none where that takes two steps.
pub(super) fn fuse(outer: &Split, inner: &Split) -> Option<Split> {
    let (step, regex) = (outer.tree.as_ref()?, inner.tree.as_ref()?);
    if inner.behavior != Behavior::Isolated || inner.invert || outer.invert {
        return None;
    }
    let (set, most) = match step {
        Node::Class(set) => (set, Some(1)),
        Node::Repeat { node, min: 1, max, lazy: false } => match node.as_ref() {
            Node::Class(set) => (set, *max),
            _ => return None,
        },
        _ => return None,
    };
    let others = not(set);
    let ours = within(regex, set, &others);
    let ours = match (outer.behavior, most) {
        (Behavior::Contiguous, _) | (Behavior::Isolated, None) => ours,
        // A piece of one character is not cut, whatever the inner step matches.
        (Behavior::Isolated, Some(1)) => step.clone(),
        (Behavior::Isolated, _) if !may_match(&ours) => step.clone(),
        _ => return None,
    };
    let tree = Node::Alternate(vec![ours, within(regex, &others, set)]);
    let scanner = Scanner::of(&tree)?;
    let seams = inner.seams.iter().chain([set]).cloned().collect();
    Some(Split::with_seams(scanner, tree, seams))
}

/// The regex for texts of characters of `set` alone, where any of the `others` ends the text.
fn within(node: &Node, set: &ClassUnicode, others: &ClassUnicode) -> Node {
    let inside = |class: &ClassUnicode| {
        let mut class = class.clone();
        class.intersect(set);
        class
    };
    let each = |parts: &[Node]| parts.iter().map(|part| within(part, set, others)).collect();
    match node {
        Node::Class(class) => Node::Class(inside(class)),
        Node::Look { next, end } => {
            let mut next = inside(next);
            if *end {
                next.union(others);
            }
            Node::Look { next, end: *end }
        }
        Node::Concat(parts) => Node::Concat(each(parts)),
        Node::Alternate(parts) => Node::Alternate(each(parts)),
        Node::Repeat { node, min, max, lazy } => {
            Node::Repeat { node: Box::new(within(node, set, others)), min: *min, max: *max, lazy: *lazy }
        }
    }
}

/// Whether any text at all may be matched, as far as sets without a character tell.
fn may_match(node: &Node) -> bool {
    match node {
        Node::Class(class) => !class.ranges().is_empty(),
        Node::Look { .. } => true,
        Node::Concat(parts) => parts.iter().all(may_match),
        Node::Alternate(parts) => parts.iter().any(may_match),
        Node::Repeat { node, min, .. } => *min == 0 || may_match(node),
    }
}
