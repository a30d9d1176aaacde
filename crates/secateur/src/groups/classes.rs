//! Elements that go together: union-find, with the reason why a class stays.

use super::Fixed;

/// One element.
pub(super) type Id = usize;

/// A partition of elements.
#[derive(Debug, Default)]
pub(super) struct Classes {
    parents: Vec<Id>,
    /// By root, the index of the reason why the class stays.
    fixed: Vec<Option<usize>>,
    reasons: Vec<Fixed>,
}

impl Classes {
    /// `count` new elements, each a class of its own.
    pub(super) fn fresh(&mut self, count: usize) -> Vec<Id> {
        let first = self.parents.len();
        self.parents.extend(first..first + count);
        self.fixed.resize(first + count, None);
        (first..first + count).collect()
    }

    /// The element that stands for the class.
    pub(super) fn root(&self, mut id: Id) -> Id {
        while self.parents[id] != id {
            id = self.parents[id];
        }
        id
    }

    /// Joins two classes; the first element made stands for both.
    pub(super) fn join(&mut self, a: Id, b: Id) {
        let (a, b) = (self.halve(a), self.halve(b));
        let (root, other) = (a.min(b), a.max(b));
        if root != other {
            self.parents[other] = root;
            self.fixed[root] = self.fixed[root].or(self.fixed[other]);
        }
    }

    /// Joins the elements of two lists pair by pair.
    pub(super) fn join_all(&mut self, a: &[Id], b: &[Id]) {
        for (&a, &b) in a.iter().zip(b) {
            self.join(a, b);
        }
    }

    /// Keeps the classes of `ids`; the first reason given is the one that is told.
    pub(super) fn fix(&mut self, ids: &[Id], reason: &Fixed) {
        let index = match self.reasons.last() {
            Some(last) if last == reason => self.reasons.len() - 1,
            _ => {
                self.reasons.push(reason.clone());
                self.reasons.len() - 1
            }
        };
        for &id in ids {
            let root = self.halve(id);
            self.fixed[root].get_or_insert(index);
        }
    }

    /// Why the class of `id` stays, `None` where it may go.
    pub(super) fn reason(&self, id: Id) -> Option<&Fixed> {
        self.fixed[self.root(id)].and_then(|index| self.reasons.get(index))
    }

    /// [`Self::root`], shortening the path for the next one who asks.
    fn halve(&mut self, mut id: Id) -> Id {
        while self.parents[id] != id {
            self.parents[id] = self.parents[self.parents[id]];
            id = self.parents[id];
        }
        id
    }
}
