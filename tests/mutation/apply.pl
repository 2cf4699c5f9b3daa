# SPDX-License-Identifier: Apache-2.0
# apply.pl MUTATION TREE: replaces the old lines by the new ones. Exit 1, and why, unless they occur exactly once.
# apply.pl --check TREE MUTATION...: changes nothing, and says in a line each what is wrong with which.
use strict;
use warnings;

local $/;

sub read_all {
        open(my $f, '<', $_[0]) or die "$_[0]: $!\n";
        return scalar <$f>;
}

# (head, file, its text, as it becomes)
sub replaced {
        my ($mutation, $tree) = @_;
        my ($head, $old, $new) = read_all($mutation) =~ /\A(.*?)^--- old\n(.*?)^\+\+\+ new\n(.*)\z/ms
                or die "$mutation: no '--- old' and '+++ new'\n";
        my ($file) = $head =~ /^file: *(\S+)$/m or die "$mutation: no 'file:'\n";
        my $text = read_all("$tree/$file");
        my $n = () = $text =~ /\Q$old\E/g;

        die "$file has the old lines $n times, not once\n" if $old eq '' || $n != 1;
        die "the new lines are the old ones\n" if $old eq $new;
        $text =~ s/\Q$old\E/$new/;
        return ($head, $file, $text);
}

# The test is there, and has the case by name; macros may put test_ before it.
sub check {
        my ($mutation, $tree) = @_;
        my ($head) = replaced($mutation, $tree);
        my ($program, $case) = $head =~ /^test: *(\S+)(?: (\S+))?$/m or die "no 'test: PROGRAM [CASE]'\n";

        $head =~ /^what: *\S/m or die "no 'what:'\n";
        -e "$tree/tests/$program.c" or die "there is no tests/$program.c\n";
        return unless defined $case;
        my $short = $case =~ s/^test_//r;
        read_all("$tree/tests/$program.c") =~ /\b(?:\Q$case\E|\Q$short\E)\b/ or die "tests/$program.c has no case $case\n";
}

if ($ARGV[0] eq '--check') {
        my (undef, $tree, @mutations) = @ARGV;

        for my $mutation (@mutations) {
                eval { check($mutation, $tree); 1 } or print $mutation =~ s/.*\///r, ": $@";
        }
        exit 0;
}
my ($mutation, $tree) = @ARGV;
my (undef, $file, $text) = replaced($mutation, $tree);
open(my $f, '>', "$tree/$file") or die "$tree/$file: $!\n";
print $f $text;
close($f) or die "$tree/$file: $!\n";
