//! The yard of a core's thread: where big values that were let go of wait to be freed in steps.
//!
//! Whoever is the last to hold a big collection pays for it: a reply that has been sent, a long call
//! whose client has gone, an overwritten value. A tree that is dropped as a whole comes here by
//! itself, so that nobody has to think of it. On a thread that opens no yard it is freed at once.
//! Must not know what is freed.

use std::cell::RefCell;
use std::fmt::Debug;

/// Something that is freed in steps.
pub trait Remains: Debug {
    /// Frees a little, some microseconds' worth. `false` when nothing is left.
    fn step(&mut self) -> bool;
}

thread_local! {
    /// None while nobody frees what is left here.
    static YARD: RefCell<Option<Vec<Box<dyn Remains>>>> = const { RefCell::new(None) };
}

/// From now on this thread frees what is left on it, by [`step`].
pub fn open() {
    YARD.with_borrow_mut(|yard| _ = yard.get_or_insert_default());
}

/// Leaves something to be freed later; at once if this thread has no yard.
pub fn leave(remains: impl Remains + 'static) {
    let mut rest: Option<Box<dyn Remains>> = Some(Box::new(remains));
    // An error says that the thread ends: nobody will step any more.
    let _ = YARD.try_with(|yard| {
        if let Some(yard) = yard.borrow_mut().as_mut() {
            yard.extend(rest.take());
        }
    });
    if let Some(mut rest) = rest {
        while rest.step() {}
    }
}

/// Frees a little. `false` when there is nothing to do.
pub fn step() -> bool {
    // Out of the yard while it is stepped: what it holds may leave something as well.
    let last = YARD.with_borrow_mut(|yard| yard.as_mut().and_then(Vec::pop));
    let Some(mut remains) = last else {
        return false;
    };
    if remains.step() {
        YARD.with_borrow_mut(|yard| yard.get_or_insert_default().push(remains));
    }
    true
}

/// Whether nothing waits.
pub fn is_empty() -> bool {
    YARD.with_borrow(|yard| yard.as_ref().is_none_or(Vec::is_empty))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::types::Collection;
    use crate::types::list::{End, List};

    #[derive(Debug)]
    struct Pieces(Rc<Cell<usize>>);

    impl Remains for Pieces {
        fn step(&mut self) -> bool {
            self.0.set(self.0.get() - 1);
            self.0.get() > 0
        }
    }

    #[test]
    fn remains_without_a_yard_are_freed_at_once() {
        let left = Rc::new(Cell::new(3));
        leave(Pieces(Rc::clone(&left)));
        assert_eq!((left.get(), step(), is_empty()), (0, false, true));
    }

    #[test]
    fn remains_in_a_yard_are_freed_in_steps() {
        open();
        let left = Rc::new(Cell::new(2));
        leave(Pieces(Rc::clone(&left)));
        assert_eq!((left.get(), is_empty()), (2, false));
        assert!(step() && left.get() == 1 && !is_empty());
        assert!(step() && left.get() == 0 && is_empty());
        assert!(!step());
    }

    #[test]
    fn list_that_its_last_holder_drops_is_freed_in_steps() {
        open();
        let mut list = List::new();
        for n in 0..100_000 {
            list.push(End::Back, n.to_string().as_bytes());
        }
        let snapshot = list.clone();
        drop(list);
        assert!(is_empty(), "somebody else holds it");
        drop(snapshot);
        let mut steps = 0;
        while step() {
            steps += 1;
        }
        assert!(steps > 30 && is_empty(), "{steps} steps");
    }

    #[test]
    fn range_that_is_cut_out_and_dropped_is_freed_in_steps() {
        open();
        let mut list = List::new();
        for n in 0..100_000 {
            list.push(End::Back, n.to_string().as_bytes());
        }
        drop(list.remove_range(10, 99_990));
        assert!(!is_empty() && list.len() == 20);
        while step() {}
        assert!(is_empty());
    }
}
