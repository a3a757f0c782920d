//! `POST /containers/{id}/exec` and `POST /exec/{id}/start`

use crate::Words;
use crate::null::object;

object! {
    pub struct ExecCreate {
        pub cmd: Option<Words>,
        pub env: Vec<String>,
        pub user: String,
        pub working_dir: String,
        pub tty: bool,
        pub attach_stdin: bool,
        pub attach_stdout: bool,
        pub attach_stderr: bool,
        pub privileged: bool,
        /// docker-py spells it in lower case, which Go takes as well.
        #[serde(alias = "detachKeys")]
        pub detach_keys: String,
        /// Rows and columns.
        pub console_size: Option<(u16, u16)>,
    }
}

object! {
    pub struct ExecStart {
        pub detach: bool,
        pub tty: bool,
        /// Rows and columns.
        pub console_size: Option<(u16, u16)>,
    }
}
