//! `case WORD in PATTERN|PATTERN) COMMANDS ;; esac`.

use super::{Node, Parsed, Reader};

impl Reader {
    pub(super) fn case(&mut self) -> Parsed<Node> {
        self.at += "case".len();
        self.blanks();
        let word = self.word()?;
        self.close("in")?;
        let mut arms = Vec::new();
        loop {
            self.separators();
            if self.at_word(&["esac"]).is_some() {
                break;
            }
            let _ = self.takes("(");
            let mut patterns = Vec::new();
            loop {
                self.blanks();
                patterns.push(self.word()?);
                self.blanks();
                if !self.takes("|") {
                    break;
                }
            }
            self.close(")")?;
            arms.push((patterns, self.list(&["esac"])?));
            self.separators();
            if !self.takes(";;") {
                break;
            }
        }
        self.close("esac")?;
        Ok(Node::Case(word, arms))
    }
}
