//! The explanation as text: a line for each rule, and below it what to do where something is wrong.

use super::{Explanation, Finding, Mark};

pub(super) fn print(of: &Explanation) -> String {
    let mut out = format!("{}/{} on {}\n\n", of.namespace, of.service, of.context);
    for finding in &of.findings {
        print_finding(&mut out, finding);
    }
    for unread in &of.unread {
        out += &format!("- not read: {}: {}\n", unread.what, unread.why);
    }
    let count = |mark| of.findings.iter().filter(|finding| finding.mark == mark).count();
    let (broken, warns, all) = (count(Mark::Broken), count(Mark::Warns), of.findings.len());
    out += &match (broken, warns) {
        (0, 0) => format!("\n√ nothing is wrong by {} rules\n", count(Mark::Holds)),
        (0, warns) => format!("\n! {warns} of {all} rules may be what is wrong\n"),
        (broken, _) => format!("\n× {broken} of {all} rules are broken, {warns} may be\n"),
    };
    out
}

fn print_finding(out: &mut String, finding: &Finding) {
    let mark = match finding.mark {
        Mark::Holds => "√",
        Mark::Warns => "!",
        Mark::Broken => "×",
        Mark::NotJudged => "-",
    };
    *out += &format!("{mark} {:<10} {}\n", finding.rule, finding.seen);
    if let Some(cure) = &finding.cure {
        *out += &format!("             why: {}\n", finding.why);
        *out += &format!("             cure: {}\n", cure.replace('\n', "\n                   "));
    }
}
