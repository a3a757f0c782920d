//! The cluster query language, as in `memberOf` constraints and `ListContainerInstances` filters.
//!
//! Grammar after the ECS developer guide, "Cluster query language". The pattern operators `=~` and `!~`
//! are refused by name: they ask for Java regular expressions, and a near miss would place tasks wrongly.

use crate::error::Error;

/// A parsed expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Query {
    And(Box<Query>, Box<Query>),
    Or(Box<Query>, Box<Query>),
    Not(Box<Query>),
    Exists(String),
    Compare(String, Comparison, String),
    OneOf(String, Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Query {
    /// # Errors
    /// `InvalidParameterException` that quotes the expression and says what was expected.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let tokens = tokens(text)?;
        let mut parser = Parser { text, tokens: &tokens, depth: 0 };
        let query = parser.or()?;
        match parser.tokens {
            [] => Ok(query),
            [extra, ..] => Err(invalid(text, &format!("'{extra}' is not expected"))),
        }
    }

    /// Whether it holds where `subject` tells the value of a subject, if there is one.
    pub(crate) fn holds(&self, subject: &impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Self::And(left, right) => left.holds(subject) && right.holds(subject),
            Self::Or(left, right) => left.holds(subject) || right.holds(subject),
            Self::Not(inner) => !inner.holds(subject),
            Self::Exists(name) => subject(name).is_some(),
            Self::OneOf(name, values) => subject(name).is_some_and(|own| values.contains(&own)),
            Self::Compare(name, comparison, value) => match subject(name) {
                Some(own) => compare(&own, *comparison, value),
                None => *comparison == Comparison::NotEqual,
            },
        }
    }
}

fn compare(own: &str, comparison: Comparison, value: &str) -> bool {
    // numbers by size, versions and the rest by their text
    let order = match (own.parse::<f64>(), value.parse::<f64>()) {
        (Ok(own), Ok(value)) => own.partial_cmp(&value),
        _ => Some(own.cmp(value)),
    };
    let Some(order) = order else { return false };
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: &'a [String],
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.first().map(String::as_str)
    }

    fn next(&mut self, expected: &str) -> Result<String, Error> {
        let (first, rest) = self
            .tokens
            .split_first()
            .ok_or_else(|| invalid(self.text, &format!("{expected} is missing at its end")))?;
        self.tokens = rest;
        Ok(first.clone())
    }

    fn or(&mut self) -> Result<Query, Error> {
        let mut left = self.and()?;
        while matches!(self.peek(), Some("or" | "||")) {
            self.next("or")?;
            left = Query::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Query, Error> {
        let mut left = self.unary()?;
        while matches!(self.peek(), Some("and" | "&&")) {
            self.next("and")?;
            left = Query::And(Box::new(left), Box::new(self.unary()?));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Query, Error> {
        // a request may not choose how deep the stack grows
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(invalid(self.text, "it is nested too deeply"));
        }
        let query = match self.peek() {
            Some("not" | "!") => {
                self.next("not")?;
                Query::Not(Box::new(self.unary()?))
            }
            Some("(") => {
                self.next("(")?;
                let inner = self.or()?;
                match &*self.next("a closing parenthesis")? {
                    ")" => inner,
                    other => {
                        return Err(invalid(self.text, &format!("')' is expected, not '{other}'")));
                    }
                }
            }
            _ => self.predicate()?,
        };
        self.depth -= 1;
        Ok(query)
    }

    fn predicate(&mut self) -> Result<Query, Error> {
        let subject = self.next("a subject")?;
        check_subject(self.text, &subject)?;
        let operator = self.next("an operator")?;
        let comparison = match &*operator {
            "==" | "equals" => Comparison::Equal,
            "!=" | "not_equals" => Comparison::NotEqual,
            ">" | "greater_than" => Comparison::Greater,
            ">=" | "greater_than_equal" => Comparison::GreaterOrEqual,
            "<" | "less_than" => Comparison::Less,
            "<=" | "less_than_equal" => Comparison::LessOrEqual,
            "exists" => return Ok(Query::Exists(subject)),
            "!exists" | "not_exists" => return Ok(Query::Not(Box::new(Query::Exists(subject)))),
            "in" => return Ok(Query::OneOf(subject, self.list()?)),
            "!in" | "not_in" => {
                return Ok(Query::Not(Box::new(Query::OneOf(subject, self.list()?))));
            }
            "=~" | "matches" | "!~" | "not_matches" => {
                return Err(Error::new(
                    crate::Code::UnsupportedFeature,
                    format!(
                        "Invalid expression '{}': patterns ({operator}) are not supported; use ==, in, or exists.",
                        self.text
                    ),
                ));
            }
            other => return Err(invalid(self.text, &format!("'{other}' is not an operator"))),
        };
        Ok(Query::Compare(subject, comparison, self.next("a value")?))
    }

    fn list(&mut self) -> Result<Vec<String>, Error> {
        if self.next("a list in brackets")? != "[" {
            return Err(invalid(self.text, "'in' wants a list in brackets"));
        }
        let mut values = Vec::new();
        loop {
            match &*self.next("a closing bracket")? {
                "]" => return Ok(values),
                "," => {}
                value => values.push(value.to_owned()),
            }
        }
    }
}

fn check_subject(text: &str, subject: &str) -> Result<(), Error> {
    let known = [
        "agentConnected",
        "agentVersion",
        "ec2InstanceId",
        "registeredAt",
        "runningTasksCount",
        "task:group",
    ];
    if known.contains(&subject)
        || subject.strip_prefix("attribute:").is_some_and(|name| !name.is_empty())
    {
        return Ok(());
    }
    Err(invalid(text, &format!("'{subject}' is not a subject")))
}

fn invalid(text: &str, why: &str) -> Error {
    Error::invalid(format!("Invalid expression '{text}': {why}."))
}

fn tokens(text: &str) -> Result<Vec<String>, Error> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if let Some(operator) =
            ["==", "!=", ">=", "<=", "=~", "!~", "&&", "||", "!exists", "!in"]
                .iter()
                .find(|o| rest.starts_with(**o))
        {
            operator.len()
        } else if "()[],<>!".contains(first) {
            first.len_utf8()
        } else if first == '"' || first == '\'' {
            let end =
                rest[1..].find(first).ok_or_else(|| invalid(text, "a quote is not closed"))?;
            tokens.push(rest[1..=end].to_owned());
            rest = rest[end + 2..].trim_start();
            continue;
        } else {
            let ends = |c: char| c.is_whitespace() || "()[],<>!=&|\"'".contains(c);
            rest.find(ends).unwrap_or(rest.len())
        };
        if length == 0 {
            return Err(invalid(text, &format!("'{first}' is not expected")));
        }
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// Parentheses and negations within each other.
const DEEPEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> Option<String> {
        let value = match name {
            "attribute:ecs.instance-type" => "t3.large",
            "attribute:stack" => "prod",
            "runningTasksCount" => "9",
            "agentConnected" => "true",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn expressions_hold_or_not() {
        for (text, expected) in [
            ("attribute:stack == prod", true),
            ("attribute:stack == prod and runningTasksCount > 10", false),
            ("runningTasksCount < 10 && agentConnected equals true", true),
            ("attribute:ecs.instance-type in [t2.small, t3.large]", true),
            ("attribute:ecs.instance-type !in [t2.small,t3.large] or attribute:stack exists", true),
            ("not (attribute:stack==test || attribute:gone exists)", true),
            ("!(attribute:stack == \"prod\")", false),
            ("attribute:gone !exists", true),
            ("attribute:gone != x", true),
        ] {
            assert_eq!(Query::parse(text).unwrap().holds(&subject), expected, "{text}");
        }
    }

    #[test]
    fn bad_expressions_say_why() {
        for (text, why) in [
            ("attribute:stack", "an operator is missing at its end"),
            ("weather == fine", "'weather' is not a subject"),
            ("attribute:a == 'x", "a quote is not closed"),
            ("(attribute:a exists", "a closing parenthesis is missing at its end"),
            ("attribute:a exists b", "'b' is not expected"),
            ("attribute:a = b", "'=' is not expected"),
            ("", "a subject is missing at its end"),
        ] {
            let error = Query::parse(text).unwrap_err();
            assert_eq!(error.message, format!("Invalid expression '{text}': {why}."));
        }
        assert!(Query::parse(&"!".repeat(100_000)).is_err());
        assert_eq!(
            Query::parse("attribute:a =~ b.*").unwrap_err().code,
            crate::Code::UnsupportedFeature
        );
    }
}
