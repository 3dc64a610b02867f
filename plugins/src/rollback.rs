//! Undoing a failed ADD.

use cni::ErrorObject;

use crate::error::{Error, warn};

/// Steps that undo what was done so far. Unless [committed](Self::commit) they run when this is
/// dropped, the last first.
#[derive(Default)]
pub(crate) struct Rollback<'a> {
    steps: Vec<Step<'a>>,
}

struct Step<'a> {
    what: &'static str,
    undo: Box<dyn FnOnce() -> Result<(), Error> + 'a>,
}

impl<'a> Rollback<'a> {
    /// Has `undo` run should the ADD fail from here on.
    pub(crate) fn push(
        &mut self,
        what: &'static str,
        undo: impl FnOnce() -> Result<(), Error> + 'a,
    ) {
        self.steps.push(Step { what, undo: Box::new(undo) });
    }

    /// Keeps what was done.
    pub(crate) fn commit(mut self) {
        self.steps.clear();
    }
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        while let Some(Step { what, undo }) = self.steps.pop() {
            if let Err(error) = undo() {
                // The error that made the ADD fail is the one that the runtime gets.
                let text = ErrorObject::from(error).msg;
                warn(&format!("could not {what} after a failed ADD: {text}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn steps_run_backwards_and_one_failing_does_not_stop_the_others() {
        let ran = RefCell::new(Vec::new());
        {
            let mut rollback = Rollback::default();
            rollback.push("first", || {
                ran.borrow_mut().push(1);
                Ok(())
            });
            rollback.push("second", || Err(Error::Conflict("no".into())));
            rollback.push("third", || {
                ran.borrow_mut().push(3);
                Ok(())
            });
        }
        assert_eq!(*ran.borrow(), [3, 1]);
    }

    #[test]
    fn nothing_runs_after_a_commit() {
        let mut rollback = Rollback::default();
        rollback.push("never", || panic!("ran"));
        rollback.commit();
    }
}
