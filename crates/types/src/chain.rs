use std::error::Error;
use std::fmt;

/// An error as a log has it: its sentence, and what of its causes that does not say.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many sentences end with their cause.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(&text);
            }
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as _)
        }
    }

    #[test]
    fn every_cause_is_said_once() {
        let broken = Layer("connection refused", None);
        let connect = Layer("connect: connection refused", Some(Box::new(broken)));
        let outer = Layer("the engine does not answer", Some(Box::new(connect)));
        let want = "the engine does not answer: connect: connection refused";
        assert_eq!(Chain(&outer).to_string(), want);
        assert_eq!(Chain(&Layer("alone", None)).to_string(), "alone");
    }
}
