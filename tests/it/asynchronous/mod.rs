//! The functions with asynchronous closures: the promises, at every place where a future can end.

mod forms;
