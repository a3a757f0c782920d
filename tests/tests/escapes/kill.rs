//! A runtime that is killed midway.
