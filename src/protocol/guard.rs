//! A value that is cleaned up when it is dropped, unless it has been disarmed: after an error, a
//! panic or the cancellation of a future alike.

use std::ops::{Deref, DerefMut};

pub(crate) trait CleanUp {
    fn clean_up(self);
}

/// `None` once it has been disarmed or cleaned up.
#[derive(Debug)]
pub(crate) struct Guard<T: CleanUp>(Option<T>);

const ARMED: &str = "the guard holds its value until it is disarmed";

impl<T: CleanUp> Guard<T> {
    pub(crate) fn new(value: T) -> Self {
        Guard(Some(value))
    }

    pub(crate) fn disarm(mut self) -> T {
        self.0.take().expect(ARMED)
    }
}

impl<T: CleanUp> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(ARMED)
    }
}

impl<T: CleanUp> DerefMut for Guard<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(ARMED)
    }
}

impl<T: CleanUp> Drop for Guard<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            value.clean_up();
        }
    }
}
