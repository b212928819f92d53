touch -d @6.4 f1; touch -d @6.5 f2; touch -d @6.999999999 f3; touch -d @-1.5 f4; touch -d @-1.7 f5
